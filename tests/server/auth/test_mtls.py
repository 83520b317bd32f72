"""Principals by client certificates, over gRPC and HTTP."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from lavant.client import TLS, AsyncClient, PermissionDenied, RunNotFound, Unauthenticated
from lavant.server.auth import mtls
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.errors import StartError
from lavant.v1.access_service_pb2 import CreateAccessTokenRequest, Restriction
from lavant.v1.run_service_pb2 import GetRunRequest
from support.calls import append, create, get
from support.certificates import Authority, Pair, tls_settings
from support.clock import ManualClock
from support.events import a_run_of
from support.server import Stubs, connected, serving
from support.status import refused
from support.streams import opened, read_to_end

TEAM = "spiffe://example.org/team/weather"
TABLE = f"""
["{TEAM}"]
tenant = "acme"
scopes = ["runs:publish", "runs:read"]

["reader.example.org"]
tenant = "acme"
scopes = ["runs:read"]

["other.example.org"]
tenant = "other"
scopes = ["runs:publish", "runs:read", "runs:admin"]
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of this test."""
    return Authority(tmp_path / "tls")


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> dict[str, Any]:
    """Settings of a server whose callers are known by their certificates."""
    table = tmp_path / "principals.toml"
    table.write_text(TABLE)
    return {
        **tls_settings(authority.server(), authority),
        "auth": ["mtls"],
        "mtls_principals": table,
        "http": "127.0.0.1:0",
    }


def client_of(target: str, authority: Authority, pair: Pair, **more: Any) -> AsyncClient:
    """A client with a certificate."""
    return AsyncClient(target, tls=TLS(ca=authority.path, cert=pair.cert, key=pair.key), **more)


async def test_a_certificate_names_its_principal(
    tmp_path: Path, authority: Authority, settings: dict[str, Any]
) -> None:
    team = authority.issue_for_uri("team", TEAM)
    reader, other = (authority.issue(name, f"{name}.example.org") for name in ("reader", "other"))
    async with serving(tmp_path, **settings) as server:
        address = server.app.http_address
        async with client_of(server.target, authority, team) as client:
            async with client.runs.start("weather", on_error="raise") as run:
                await run.text("It is cold.")
            assert await client.runs.stream(run.id).text() == "It is cold."
            with pytest.raises(PermissionDenied) as denied:
                await client.runs.delete(run.id)
            assert denied.value.scope == "runs:admin"
        async with client_of(server.target, authority, reader) as client:
            assert (await client.runs.get(run.id)).id == run.id
            with pytest.raises(PermissionDenied) as denied:
                await client.runs.create("weather")
            assert denied.value.scope == "runs:publish"
        async with httpx.AsyncClient(verify=authority.context(reader)) as browser:
            assert (await browser.get(f"https://{address}/api/v1/runs/{run.id}")).status_code == 200
        async with client_of(server.target, authority, other) as client:
            with pytest.raises(RunNotFound):
                await client.runs.get(run.id)
        async with httpx.AsyncClient(verify=authority.context(other)) as browser:
            assert (await browser.get(f"https://{address}/api/v1/runs/{run.id}")).status_code == 404


async def test_a_certificate_of_nobody_is_refused(
    tmp_path: Path, authority: Authority, settings: dict[str, Any]
) -> None:
    stranger = authority.issue("stranger", "stranger.example.org")
    async with serving(tmp_path, **settings) as server:
        async with client_of(server.target, authority, stranger) as client:
            with pytest.raises(Unauthenticated, match=r"stranger.example.org, is of no principal"):
                await client.runs.get("run")
            with pytest.raises(Unauthenticated):
                await client.runs.stream("run").text()
        async with client_of(server.target, authority, stranger, api_key="lvk_a_b") as client:
            with pytest.raises(Unauthenticated):  # never by trial: what is sent counts
                await client.runs.get("run")
        async with httpx.AsyncClient(verify=authority.context(stranger)) as browser:
            address = server.app.http_address
            assert (await browser.get(f"https://{address}/api/v1/runs")).status_code == 401


INTERVAL = 2.0  # seconds between two reads of the table


async def test_name_that_is_taken_out_ends_its_streams_and_tokens(
    tmp_path: Path, authority: Authority, settings: dict[str, Any], clock: ManualClock
) -> None:
    team, reader = authority.issue_for_uri("team", TEAM), authority.issue("reader", "reader.example.org")
    table: Path = settings["mtls_principals"]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serving(tmp_path, clock=clock, **{**settings, "auth": ["mtls", "keys"]})
        )

        async def calling(pair: Pair) -> Stubs:
            return await stack.enter_async_context(connected(server.target, authority.channel_credentials(pair)))

        of_team, of_reader = await calling(team), await calling(reader)
        await create(of_team)
        streams = [await opened(stubs, consumer_id=f"ui-{n}") for n, stubs in enumerate((of_team, of_reader))]
        request = CreateAccessTokenRequest(restriction=Restriction(run_ids=["run"]))
        token = (await of_reader.access.CreateAccessToken(request)).token
        metadata = [("authorization", f"Bearer {token}")]
        await of_team.runs.GetRun(GetRunRequest(run_id="run"), metadata=metadata)

        async def until_read(text: str) -> None:
            with capture_logs() as logs:
                await asyncio.to_thread(table.write_text, text)
                while not any("reloaded" in str(entry["event"]) for entry in logs):
                    clock.advance(INTERVAL)
                    await of_team.runs.GetRun(GetRunRequest(run_id="run"))

        await until_read("nonsense")
        await get(of_reader)
        await until_read(TABLE.replace('["reader.example.org"]', '["former.example.org"]'))
        with refused("UNAUTHENTICATED"):
            await read_to_end(streams[1])
        with refused("UNAUTHENTICATED"):
            await get(of_reader)
        with refused("UNAUTHENTICATED"):
            await of_team.runs.GetRun(GetRunRequest(run_id="run"), metadata=metadata)
        await until_read(TABLE)
        again = await opened(of_reader, consumer_id="ui-1", session_id="again")
        await append(of_team, a_run_of(4))
        for stream in (streams[0], again):
            assert (await read_to_end(stream)).last.HasField("end")


async def test_name_that_is_allowed_less_ends_its_streams_and_may_still_call(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(TABLE)
    reported = list[tuple[str, str]]()
    table = CertificatePrincipals(
        path, clock, lambda name: reported.append(("reduced", name)), lambda name: reported.append(("allowed", name))
    )
    path.write_text(TABLE.replace('["runs:read"]', '["runs:read", "scores:read"]'))
    await table.run_once()
    assert {what for what, _ in reported} == {"allowed"}
    reported.clear()
    less = TABLE.replace('"runs:publish", "runs:read"', '"runs:read"').replace('tenant = "other"', 'tenant = "b"')
    path.write_text(less)
    await table.run_once()
    names = [f"tls:{TEAM}", "tls:reader.example.org", "tls:other.example.org"]
    assert reported == [*(("reduced", name) for name in names), *(("allowed", name) for name in names)]


async def test_table_is_parsed_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(TABLE)
    table = CertificatePrincipals(path, ManualClock())
    parsed: list[bytes] = []
    parse = mtls._parse

    def noted(path: Path, content: bytes) -> Any:
        parsed.append(content)
        return parse(path, content)

    monkeypatch.setattr(mtls, "_parse", noted)
    await table.run_once()
    assert parsed == []
    for text in ("nonsense", TABLE):
        path.write_text(text)
        for _ in range(2):
            await table.run_once()
    path.unlink()
    await table.run_once()
    path.write_text(TABLE)
    for _ in range(2):
        await table.run_once()
    assert parsed == [b"nonsense", TABLE.encode(), TABLE.encode()]
    assert table(["reader.example.org"]).tenant == "acme"


async def test_limits_of_a_name_bind_its_calls(tmp_path: Path, authority: Authority, settings: dict[str, Any]) -> None:
    settings["mtls_principals"].write_text(TABLE.replace('["runs:read"]', '["runs:read"]\nlimits = { streams = 1 }'))
    team, reader = authority.issue_for_uri("team", TEAM), authority.issue("reader", "reader.example.org")
    async with (
        serving(tmp_path, **settings) as server,
        connected(server.target, authority.channel_credentials(team)) as of_team,
        connected(server.target, authority.channel_credentials(reader)) as of_reader,
    ):
        await create(of_team)
        await opened(of_reader, consumer_id="a")
        with refused("QUOTA_EXCEEDED") as refusal:
            await read_to_end(await opened(of_reader, consumer_id="b"))
        assert refusal.metadata == {"quota": "streams", "limit": "1"}
        await opened(of_team, consumer_id="b")


BAD = {
    "[a]\ntenant = 'acme'": "a.scopes: Field required",
    "[a]\ntenant = 'a/b'\nscopes = []": "a.tenant: Value error, must be 1 to 64",
    "[a]\ntenant = 'lavant'\nscopes = []": "a.tenant",
    "[a]\ntenant = 'acme'\nscopes = ['runs:all']": "a.scopes.0: Input should be",
    "[a]\ntenant = 'acme'\nscopes = []\nextra = 1": "a.extra",
    "[a]\ntenant = 'acme'\nscopes = []\nlimits = {calls = 0}": "a.limits.calls",
    "[a]\ntenant = 'acme'\nscopes = []\nlimits = {open_runs = 1}": "a.limits.open_runs",
    "a = 1": "a: Input should be",
    "a =": "cannot be read as TOML",
}


@pytest.mark.parametrize(("text", "expected"), BAD.items())
def test_a_bad_table_is_explained_at_start(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(text)
    with pytest.raises(StartError) as refused:
        CertificatePrincipals(path, ManualClock())
    assert expected in str(refused.value)
    with pytest.raises(StartError, match="cannot be read: No such file"):
        CertificatePrincipals(tmp_path / "missing.toml", ManualClock())
