"""Clients over TLS: what they trust, and what is said when there is no connection."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lavant.client import TLS, AsyncClient, Client, Unavailable
from support.certificates import EXPIRED, Authority, tls_settings
from support.server import free_address, serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of this test."""
    return Authority(tmp_path / "tls")


def blocking_run(target: str, **settings: Any) -> str:
    """Publish a run and read it with the blocking client."""
    with Client(target, **settings) as client:
        with client.runs.start("agent", on_error="raise") as run:
            run.text("It is cold.")
        return client.runs.stream(run.id).text()


async def run_of(target: str, **settings: Any) -> str:
    """Publish a run and read it."""
    async with AsyncClient(target, **settings) as client:
        async with client.runs.start("agent", on_error="raise") as run:
            await run.text("It is cold.")
        return await client.runs.stream(run.id).text()


async def failure(target: str, **settings: Any) -> str:
    """Why there is no connection."""
    async with AsyncClient(target, timeout=1, **settings) as client:
        with pytest.raises(Unavailable) as failed:
            await client.runs.get("run")
    return str(failed.value)


async def test_runs_are_published_and_read_over_mutual_tls(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("agent", "agent.example.org")
    tls = TLS(ca=authority.path, cert=pair.cert, key=pair.key)
    async with serving(tmp_path, **tls_settings(authority.server(), authority)) as server:
        assert await run_of(server.target, tls=tls, api_key="lvk_a_b") == "It is cold."
        assert await asyncio.to_thread(blocking_run, server.target, tls=tls) == "It is cold."
        assert "may require TLS or a client certificate" in await failure(server.target, tls=authority.path)
        assert "may require TLS or a client certificate" in await failure(server.target)
        for name, path in (("CA", authority.path), ("CERT", pair.cert), ("KEY", pair.key)):
            monkeypatch.setenv(f"LAVANT_TLS_{name}", str(path))
        assert await run_of(server.target) == "It is cold."


async def test_a_certificate_that_cannot_be_trusted_is_explained(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path / "other")
    async with serving(tmp_path, **tls_settings(authority.server())) as server:
        assert "comes from no trusted CA: name the CA's file" in await failure(server.target, tls=stranger.path)
        assert "comes from no trusted CA" in await failure(server.target, tls=True)
    async with serving(tmp_path, **tls_settings(authority.server(**EXPIRED))) as server:
        assert "its certificate has expired" in await failure(server.target, tls=authority.path)


async def test_a_certificate_for_another_name_needs_server_name(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, **tls_settings(authority.issue("server", "lavant.example.org"))) as server:
        assert "its certificate is for other names" in await failure(server.target, tls=authority.path)
        tls = TLS(ca=authority.path, server_name="lavant.example.org")
        assert await run_of(server.target, tls=tls) == "It is cold."


async def test_new_connections_read_the_files_again(tmp_path: Path, authority: Authority) -> None:
    address = free_address()
    async with AsyncClient(address, tls=authority.path, timeout=20) as client:
        async with serving(tmp_path, listen=address, **tls_settings(authority.server())):
            await client.runs.create("agent")
        successor = Authority(tmp_path / "tls")  # the same file, of another CA
        async with serving(tmp_path, listen=address, **tls_settings(successor.server())):
            client._connection.replace_channels()
            await client.runs.create("agent")
            authority.path.unlink()
            client._connection.replace_channels()
            await client.runs.create("agent")  # with what was read last
