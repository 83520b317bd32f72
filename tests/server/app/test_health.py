"""Health, as gRPC's own tools expect it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.calls import append, create
from support.events import custom, run_started
from support.server import Server, connected, serving
from support.status import refused

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "lavant.v1.RunService", "lavant.v1.EventService")


def health(channel: aio.Channel) -> Any:
    """The stub of the health service."""
    return health_pb2_grpc.HealthStub(channel)


def watch(server: Server, service: str = "") -> Any:
    """Watch a service's health."""
    return health(server.stubs.channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)


async def check(server: Server, service: str) -> Any:
    """Ask for a service's health."""
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health(server.stubs.channel).Check(request, timeout=20)).status


@pytest.mark.parametrize("service", SERVICES)
async def test_every_service_is_serving(server: Server, service: str) -> None:
    assert await check(server, service) == SERVING


async def test_an_unknown_service(server: Server) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await check(server, "lavant.v1.Nothing")
    assert caught.value.code() == StatusCode.NOT_FOUND


async def test_a_draining_server_says_so_to_those_who_watch(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_timeout=5) as server:
        await create(server.stubs)
        watches = [watch(server, service) for service in SERVICES]
        assert [(await one.read()).status for one in watches] == [SERVING] * 3
        with server.app.calls.entered(lambda: None):  # the drain waits for this one
            stopping = asyncio.create_task(server.app.stop())
            assert [(await one.read()).status for one in watches] == [NOT_SERVING] * 3
            with refused("UNAVAILABLE"):
                await server.stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui")).read()
        await stopping


async def test_those_who_watch_do_not_hold_up_the_stop(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_timeout=60) as server, connected(server.target) as other:
        watches = [watch(server) for _ in range(5)]
        watches += [health(other.channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(5)]
        for one in watches:
            await one.read()
        began = time.monotonic()
        await server.app.stop()
        assert time.monotonic() - began < 3


async def test_a_stream_that_will_not_end_is_cut(tmp_path: Path) -> None:
    """Its reader reads nothing, and so cannot learn that the server drains."""
    async with serving(tmp_path, drain_timeout=0.2, write_timeout=60) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started()])
        for number in range(2, 20):
            await append(server.stubs, [custom(value_json='"' + "x" * 500_000 + '"')], first=number)
        call = server.stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"), timeout=60)
        await call.read()
        async with asyncio.timeout(10):
            await server.app.stop()
        assert len(server.app.calls) == 0
        call.cancel()
