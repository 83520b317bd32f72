"""CancelRun reaches the producers on their PublishEvents calls."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from grpc import aio

from lavant.server.model import RunKey
from lavant.server.rpc.dispatch import Call
from lavant.server.rpc.publish import Publication
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.outlet import Outlet
from lavant.v1.event_service_pb2 import PublishEventsRequest, PublishEventsResponse
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import CancelRunRequest
from support.calls import answer, create, publish, publishing
from support.clock import ManualClock
from support.events import a_run_of, batch_of, custom, run_finished, run_started
from support.server import Server, serving


async def test_cancel_reaches_an_open_call_once(server: Server) -> None:
    await create(server.stubs)
    await create(server.stubs, "other")
    async with publishing(server.stubs) as call:
        for run_id in ("other", "run"):
            await publish(call, [run_started()], run_id=run_id)
            await answer(call)
        for reason in ("too slow", "really", "too slow"):
            await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run", reason=reason))
        request = await answer(call)
        await publish(call, [run_finished()], first=2)
        receipt = await answer(call)
        await call.done_writing()
        assert await call.read() is aio.EOF
    assert (request.run_id, request.cancel_request.reason) == ("run", "too slow")
    assert (receipt.run_id, receipt.receipt.last_sequence) == ("run", 2)


async def test_cancel_waits_for_a_producer_that_is_yet_to_come(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run", reason="not needed"))
    async with serving(tmp_path) as server:
        for number in (1, 2):  # each call is told once
            async with publishing(server.stubs) as call:
                await publish(call, [custom() if number > 1 else run_started()], first=number)
                assert (await answer(call)).receipt.last_sequence == number
                assert (await answer(call)).cancel_request.reason == "not needed"
                await publish(call)
                assert (await answer(call)).HasField("receipt")


async def test_a_producer_that_resumes_a_cancelled_and_ended_run_is_not_told(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        await publish(call, events := a_run_of(4))
        await answer(call)
        await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run"))
        await publish(call, events)
        assert (await answer(call)).receipt.duplicate
        await call.done_writing()
        assert await call.read() is aio.EOF


class Client:
    """The other side of a call: sends batches, and does something with each answer before the server goes on."""

    def __init__(
        self, batches: list[PublishEventsRequest], on_answer: Callable[[PublishEventsResponse], Awaitable[None]]
    ) -> None:
        self.answers: list[PublishEventsResponse] = []
        self._batches = batches
        self._on_answer = on_answer
        self._answered = asyncio.Event()

    async def read(self) -> object:
        """What the server reads next."""
        if self._batches:
            return self._batches.pop(0).SerializeToString()
        await self._answered.wait()
        return aio.EOF

    async def write(self, data: bytes) -> None:
        """Take an answer."""
        self.answers.append(answered := PublishEventsResponse.FromString(data))
        await self._on_answer(answered)
        if len(self.answers) == 2:
            self._answered.set()


async def test_a_run_that_is_deleted_meanwhile_does_not_end_the_call(tmp_path: Path) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", ManualClock())
    requests = []
    for run_id in ("short", "long"):
        await engine.create_run(RunKey("default", run_id), Run(name="weather"))
        requests.append(PublishEventsRequest(batch=batch_of(a_run_of(4), run_id=run_id)))

    async def delete(answered: PublishEventsResponse) -> None:
        if answered.run_id == "short":
            await engine.delete_run(RunKey("default", "short"))

    client = Client(requests, delete)
    await Publication(engine, Call(client), Outlet(client.write, 5)).run()  # type: ignore[arg-type]
    await engine.close()

    assert [(found.run_id, found.receipt.last_sequence) for found in client.answers] == [("short", 4), ("long", 4)]


async def test_a_call_stops_watching_the_runs_that_have_ended(tmp_path: Path) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", ManualClock())
    requests = []
    for run_id in ("whole", "resent"):
        await engine.create_run(RunKey("default", run_id), Run(name="weather"))
        requests.append(PublishEventsRequest(batch=batch_of(a_run_of(4), run_id=run_id)))
    await engine.append(RunKey("default", "resent"), batch_of(a_run_of(4), run_id="resent"))
    watching: list[bool] = []

    async def look(answered: PublishEventsResponse) -> None:
        watching.append(RunKey("default", "whole") in engine._runs._watches)

    client = Client(requests, look)
    publication = Publication(engine, Call(client), Outlet(client.write, 5))  # type: ignore[arg-type]
    await publication.run()
    assert watching == [False, False]
    assert not publication._watches
    await engine.close()
