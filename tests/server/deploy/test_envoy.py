"""Streams through a real Envoy, with the configuration that is shipped."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from lavant.client import AsyncClient, ConsumerBusy
from server.http.reading import read, read_all
from support.calls import create
from support.envoy import Envoy
from support.server import ServerProcess, connected, free_address
from support.shipped_nats import make_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A server behind Envoy."""

    server: ServerProcess
    http: str
    envoy: Envoy

    async def start_server(self) -> None:
        """Start it, again where it was."""
        await self.server.start("--http", self.http)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    server, http = ServerProcess(tmp_path, admin=free_address()), free_address()
    await server.start("--http", http)
    envoy = Envoy(tmp_path, [server.target], [http], [server.admin])
    try:
        await envoy.start()
        await envoy.healthy(1)
        yield Site(server=server, http=http, envoy=envoy)
    finally:
        await envoy.kill()
        await server.kill()


async def test_nobody_notices_who_dies(site: Site) -> None:
    words = [f"{number} " for number in range(300)]
    async with AsyncClient(site.envoy.target) as writer, AsyncClient(site.envoy.target) as reader:
        read = list[str]()

        async def follow(run_id: str) -> None:
            async for chunk in reader.runs.stream(run_id, consumer="ui", reconnect_timeout=60).text_chunks:
                read.append(chunk)

        async with writer.runs.start("agent", on_error="raise") as run:
            await run.flush()
            following = asyncio.create_task(follow(run.id))
            for number, word in enumerate(words):
                await run.text(word)
                if number % 50 == 25:
                    await run.flush()
                if number == 75:
                    await site.envoy.kill()
                    await site.envoy.start()
                if number == 175:
                    await site.server.kill()
                    await site.start_server()
                if number == 250:
                    await site.server.terminate()
                    await site.start_server()
        await following
    assert "".join(read) == "".join(words)


async def test_a_place_is_one_behind_envoy_too(site: Site) -> None:
    async with (
        AsyncClient(site.envoy.target) as one,
        AsyncClient(site.envoy.target) as other,
        one.runs.start("agent") as run,
    ):
        await run.flush()
        async with one.runs.stream(run.id, consumer="ui") as stream:
            await anext(stream)
            with pytest.raises(ConsumerBusy):
                await anext(other.runs.stream(run.id, consumer="ui"))
        async with other.runs.stream(run.id, consumer="ui") as stream:
            assert (await anext(stream)).type == "run_started"


async def test_browsers_are_served_through_envoy(site: Site) -> None:
    async with AsyncClient(site.envoy.target) as client, httpx.AsyncClient(base_url=f"http://{site.envoy.http}") as web:
        async with client.runs.start("agent") as run:
            await run.text("before")
            await run.flush()
            async with web.stream("GET", f"/api/v1/runs/{run.id}/stream") as response:
                events = read(response)
                while (last := await anext(events)).name != "text_delta":
                    pass
                await run.text("after")
                while (last := await anext(events)).name != "text_delta":
                    pass
                assert json.loads(last.data)["text_delta"]["text"] == "after"
        rest = await read_all(web, f"/api/v1/runs/{run.id}/stream", last.last_id)
    assert [event.name for event in rest if event.name == "run_finished"] == ["run_finished"]


async def test_envoy_and_replicas_speak_tls(tmp_path: Path) -> None:
    """With the certificates of make-secrets, as in the compose file."""
    made = make_secrets(tmp_path) / "lavant-tls"
    server, http = ServerProcess(tmp_path, admin=free_address()), free_address()
    await server.start("--http", http, "--tls-cert", f"{made}/tls.crt", "--tls-key", f"{made}/tls.key")
    envoy = Envoy(tmp_path, [server.target], [http], [server.admin], made)
    try:
        await envoy.start()
        await envoy.healthy(1)
        trusted = grpc.ssl_channel_credentials((made / "ca.crt").read_bytes())
        async with connected(envoy.target, trusted) as stubs:
            await create(stubs, "run")
        context = ssl.create_default_context(cafile=made / "ca.crt")
        async with httpx.AsyncClient(base_url=f"https://{envoy.http}", verify=context) as web:
            assert (await web.get("/api/v1/runs/run")).json()["run_id"] == "run"
    finally:
        await envoy.kill()
        await server.kill()
