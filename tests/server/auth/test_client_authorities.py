"""CAs of clients that are taken out: what becomes of the certificates that they issued, on open connections."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from support.calls import append, create, get
from support.certificates import Authority, Pair, tls_settings
from support.clock import ManualClock
from support.events import a_run_of
from support.server import Server, Stubs, connected, serving
from support.status import refused
from support.streams import opened, read_to_end

INTERVAL = 2.0  # seconds between two reads of the files
TABLE = """
["old.example.org"]
tenant = "acme"
scopes = ["runs:publish", "runs:read"]

["new.example.org"]
tenant = "acme"
scopes = ["runs:publish", "runs:read"]
"""


@pytest.fixture
def authorities(tmp_path: Path) -> dict[str, Authority]:
    """Two CAs of clients, of which both are accepted first."""
    return {name: Authority(tmp_path / name) for name in ("old", "new")}


@pytest.fixture
def file(tmp_path: Path, authorities: dict[str, Authority]) -> Path:
    """The file of the CAs."""
    path = tmp_path / "clients.pem"
    path.write_bytes(b"".join(authority.pem for authority in authorities.values()))
    return path


@pytest.fixture
def settings(tmp_path: Path, authorities: dict[str, Authority], file: Path) -> dict[str, Any]:
    """Settings of a server whose own certificate is from the CA that stays."""
    table = tmp_path / "principals.toml"
    table.write_text(TABLE)
    return {
        **tls_settings(authorities["new"].server()),
        "tls_client_ca": file,
        "auth": ["mtls"],
        "mtls_principals": table,
        "http": "127.0.0.1:0",
    }


async def replaced(file: Path, content: bytes, clock: ManualClock) -> None:
    """Write other CAs, and wait until the server uses them."""
    with capture_logs() as logs:
        fresh = file.with_suffix(".fresh")
        await asyncio.to_thread(fresh.write_bytes, content)
        await asyncio.to_thread(fresh.replace, file)
        while not any(entry["event"] == "certificate_reloaded" for entry in logs):
            clock.advance(INTERVAL)
            await asyncio.sleep(0)


async def test_ca_that_is_taken_out_ends_the_streams_of_its_certificates(
    tmp_path: Path, authorities: dict[str, Authority], file: Path, settings: dict[str, Any], clock: ManualClock
) -> None:
    server_ca, both = authorities["new"], b"".join(authority.pem for authority in authorities.values())
    pairs = {name: authority.issue("client", f"{name}.example.org") for name, authority in authorities.items()}
    async with AsyncExitStack() as stack:
        server: Server = await stack.enter_async_context(serving(tmp_path, clock=clock, **settings))

        async def calling(pair: Pair) -> Stubs:
            return await stack.enter_async_context(connected(server.target, server_ca.channel_credentials(pair)))

        async def browsing(pair: Pair) -> httpx.AsyncClient:
            url = f"https://{server.app.http_address}/api/v1/runs"
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, verify=server_ca.context(pair)))

        old, new = await calling(pairs["old"]), await calling(pairs["new"])
        old_page, new_page = await browsing(pairs["old"]), await browsing(pairs["new"])
        await create(new)
        streams = [await opened(stubs, consumer_id=f"ui-{n}") for n, stubs in enumerate((old, new))]
        old_events = await stack.enter_async_context(old_page.stream("GET", "/run/stream"))
        lines = old_events.aiter_lines()
        while not (await anext(lines)).startswith("event: opened"):
            pass
        assert (await old_page.get("/run")).status_code == 200

        await replaced(file, server_ca.pem, clock)
        with refused("UNAUTHENTICATED") as refusal:
            await read_to_end(streams[0])
        assert "the CA of the client certificate is not accepted any more" in refusal.status.message
        assert any("UNAUTHENTICATED" in line for line in [line async for line in lines])
        with refused("UNAUTHENTICATED"):
            await get(old)
        assert (await old_page.get("/run")).status_code == 401
        await get(new)
        assert (await new_page.get("/run")).status_code == 200

        await replaced(file, both, clock)
        again = await opened(old, consumer_id="ui-0", session_id="again")
        await append(new, a_run_of(4))
        for stream in (streams[1], again):
            assert (await read_to_end(stream)).last.HasField("end")
        assert (await old_page.get("/run")).status_code == 200


async def test_ca_that_is_taken_out_ends_calls_with_keys_over_its_certificates(
    tmp_path: Path, authorities: dict[str, Authority], file: Path, settings: dict[str, Any], clock: ManualClock
) -> None:
    settings |= {"auth": ["keys"], "mtls_principals": None, "init_key": True}
    server_ca = authorities["new"]
    old = authorities["old"].issue("client", "old.example.org")
    new = server_ca.issue("client", "new.example.org")
    settings["credentials"] = server_ca.channel_credentials(new)
    async with (
        serving(tmp_path, clock=clock, **settings) as server,
        connected(server.target, server_ca.channel_credentials(old), bearer=server.app.first_key or "") as stubs,
    ):
        await create(stubs)
        stream = await opened(stubs)
        await replaced(file, server_ca.pem, clock)
        for call in (read_to_end(stream), get(stubs)):
            with refused("UNAUTHENTICATED"):
                await call
        await get(server.stubs)
