"""CancelRun reaches the producers on their PublishEvents calls."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from grpc import aio

from lavant.server.auth.audit import Audit
from lavant.server.auth.label_keys import LabelKeys
from lavant.server.auth.principal import ANONYMOUS
from lavant.server.auth.quotas import Quotas
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.model import RunKey
from lavant.server.rpc.dispatch import Call
from lavant.server.rpc.publish import Publication, Publisher
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.frames import StallWatch
from lavant.v1.event_service_pb2 import BatchAnswer, PublishEventsRequest, PublishEventsResponse
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
        request = await call.cancel_request()
        await publish(call, [run_finished()], first=2)
        receipt = await answer(call)
        await call.done_writing()
        assert await call.rest() == []
    assert (request.run_id, request.reason) == ("run", "too slow")
    assert (receipt.run_id, receipt.receipt.last_sequence) == ("run", 2)


async def test_cancel_waits_for_a_producer_that_is_yet_to_come(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run", reason="not needed"))
    async with serving(tmp_path) as server:
        for number in (1, 2):  # each call gets one request
            async with publishing(server.stubs) as call:
                await publish(call, [custom() if number > 1 else run_started()], first=number)
                assert (await answer(call)).receipt.last_sequence == number
                assert (await call.cancel_request()).reason == "not needed"
                await publish(call)
                assert (await answer(call)).HasField("receipt")


async def test_a_cancelled_run_that_has_ended_sends_no_cancel_request(server: Server) -> None:
    await create(server.stubs)
    async with publishing(server.stubs) as call:
        await publish(call, events := a_run_of(4))
        await answer(call)
        await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run"))
        await publish(call, events)
        assert (await answer(call)).receipt.duplicate
        await call.done_writing()
        assert await call.rest() == []


class Client:
    """The other side of a call: sends batches, and handles each answer before the server continues."""

    def __init__(
        self, batches: list[PublishEventsRequest], on_answer: Callable[[BatchAnswer], Awaitable[None]]
    ) -> None:
        self.answers: list[BatchAnswer] = []
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
        """Take answers."""
        for answered in PublishEventsResponse.FromString(data).answers:
            self.answers.append(answered)
            await self._on_answer(answered)
        if len(self.answers) == 2:
            self._answered.set()


def publication(engine: SQLiteEngine, client: Client) -> Publication:
    """Make a PublishEvents call of a client without a connection."""
    clock = ManualClock()
    publisher = Publisher(
        engine=engine,
        calls=Calls(1, clock),
        clock=clock,
        stalls=StallWatch(5),
        quotas=RunQuotas(engine, clock, Quotas(clock), LabelKeys(engine, clock)),
        audit=Audit(engine, clock),
    )
    return Publication(publisher, Call(client, ANONYMOUS))  # type: ignore[arg-type]


async def test_a_run_that_is_deleted_meanwhile_does_not_end_the_call(tmp_path: Path) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", ManualClock())
    requests = []
    for run_id in ("short", "long"):
        await engine.create_run(RunKey("default", run_id), Run(name="weather"))
        requests.append(PublishEventsRequest(batches=[batch_of(a_run_of(4), run_id=run_id)]))

    async def delete(answered: BatchAnswer) -> None:
        if answered.run_id == "short":
            await engine.delete_run(RunKey("default", "short"))

    client = Client(requests, delete)
    await publication(engine, client).run()
    await engine.close()

    assert [(found.run_id, found.receipt.last_sequence) for found in client.answers] == [("short", 4), ("long", 4)]


async def test_a_call_stops_watching_the_runs_that_have_ended(tmp_path: Path) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", ManualClock())
    requests = []
    for run_id in ("whole", "resent"):
        await engine.create_run(RunKey("default", run_id), Run(name="weather"))
        requests.append(PublishEventsRequest(batches=[batch_of(a_run_of(4), run_id=run_id)]))
    await engine.append(RunKey("default", "resent"), batch_of(a_run_of(4), run_id="resent"))
    watching: list[bool] = []

    async def look(answered: BatchAnswer) -> None:
        watching.append(RunKey("default", "whole") in engine._runs._watches)

    client = Client(requests, look)
    call = publication(engine, client)
    await call.run()
    assert watching == [False, False]
    assert not call._watches
    await engine.close()
