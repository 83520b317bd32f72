"""What is said of a server that cannot be reached: what was wrong, and what to do."""

import asyncio
import socket
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from lavant.client import AsyncClient, IdleTimeout, StreamCut, StreamTimeout, Unavailable
from lavant.v1 import run_service_pb2
from lavant.v1.run_service_pb2 import GetRunRequest
from support.scripted import scripted
from support.scripted_calls import ScriptedService
from support.server import Server, ServerProcess, free_address, serving


async def failure_at(target: str, *, timeout: float = 1, **settings: Any) -> str:
    async with AsyncClient(target, timeout=timeout, **settings) as client:
        with pytest.raises(Unavailable) as caught:
            await client.runs.get("r")
    return str(caught.value)


async def test_a_server_that_is_away() -> None:
    address = free_address()
    told = await failure_at(address)
    assert told.startswith(f"no server answers at {address}: Connection refused; start one with `lavant serve`")
    assert "LAVANT_TARGET" in told


async def test_lavants_http_port(tmp_path: Any) -> None:
    async with serving(tmp_path, http="127.0.0.1:0") as server:
        told = await failure_at(str(server.app.http_address))
    assert told.startswith(f"the server at {server.app.http_address} does not speak gRPC")


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"])
async def test_a_server_of_another_protocol(greeting: bytes) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        assert "does not speak gRPC" in await failure_at(f"127.0.0.1:{port}")


async def test_a_peer_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as never_accepting:
        port = never_accepting.getsockname()[1]
        assert (await failure_at(f"127.0.0.1:{port}")).startswith("no answer came in time")


async def test_a_last_attempt_without_an_answer_does_not_hide_the_cause() -> None:
    async def get_run(_: GetRunRequest, context: Any) -> None:
        if len(service.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server starts")
        await asyncio.Event().wait()

    service = ScriptedService(run_service_pb2.DESCRIPTOR.services_by_name["RunService"], GetRun=get_run)
    async with scripted(service) as target:
        assert await failure_at(target) == "the server starts"
    assert len(service.requests) > 1


async def test_a_host_that_does_not_exist() -> None:
    told = await failure_at("no-such-host.invalid:7447", timeout=10)  # name servers take their time
    assert told.startswith("the host of 'no-such-host.invalid:7447' cannot be found")


async def test_a_server_without_tls(server: Server) -> None:
    told = await failure_at(server.target, tls=True)
    assert told.startswith(f"no secure connection to {server.target}")
    assert "does not use TLS" in told


@pytest.mark.parametrize("name", ["created_after", "created_before"])
async def test_a_time_without_a_zone_is_refused(client: AsyncClient, name: str) -> None:
    naive = datetime(2026, 1, 2)  # noqa: DTZ001
    wanted: dict[str, Any] = {name: naive}
    with pytest.raises(ValueError, match=rf"{name} must have a time zone.*datetime\.now\(UTC\)"):
        await anext(client.runs.list(**wanted))
    with pytest.raises(ValueError, match="time zone"):
        await anext(client.runs.watch(**wanted))
    wanted[name] = "2026-01-02"
    with pytest.raises(TypeError, match=f"{name} must be a datetime, not '2026-01-02'"):
        await anext(client.runs.list(**wanted))
    wanted[name] = naive.replace(tzinfo=UTC)
    assert await anext(client.runs.list(**wanted), None) is None


async def test_waiting_for_a_run_ends_as_was_asked(server_process: ServerProcess) -> None:
    async with AsyncClient(server_process.target) as client:
        with pytest.raises(StreamTimeout):
            await anext(client.runs.stream("never", wait_for_run=True, timeout=0.1))
        with pytest.raises(IdleTimeout):
            await anext(client.runs.stream("never", wait_for_run=True, idle_timeout=0.1))
        stream = client.runs.stream("never", wait_for_run=True, reconnect_timeout=0.1)
        await stream.open()
        await server_process.kill()
        with pytest.raises(StreamCut, match="not resumed within"):
            await anext(stream)
        with pytest.raises(Unavailable, match="no server answers"):
            await anext(client.runs.stream("never", wait_for_run=True, reconnect_timeout=0.1))


@pytest.mark.parametrize("labels", [{"team": None}, {5: "x"}, {"team": 1}, ["team"]])
async def test_labels_that_are_no_text_are_refused(client: AsyncClient, labels: Any) -> None:
    with pytest.raises(TypeError, match="labels must"):
        await anext(client.runs.list(labels=labels))
    with pytest.raises(TypeError, match="labels must"):
        await client.runs.create("agent", labels=labels)
