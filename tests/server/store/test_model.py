"""Every engine against a model of it, by random steps."""

import asyncio
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store.jetstream import JetStreamEngine
from lavant.server.store.port import Engine, RunQuery
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt
from lavant.v1.run_pb2 import Run, RunSettings
from support.clock import ManualClock
from support.engines import bare, pending_cancel, stored
from support.events import batch_of, custom, run_finished, run_started
from support.nats import NatsServer, delete_streams, fresh_location

KEYS = [RunKey("acme", "a"), RunKey("acme", "b"), RunKey("bcme", "a")]
keys = st.sampled_from(KEYS)
places = st.lists(st.tuples(st.sampled_from(["p", "q"]), st.integers(0, 2), st.integers(-2, 1)), max_size=4)


@dataclass
class ModelledRun:
    """What a run must look like. `sent` holds the events of each producer's epoch."""

    created: int
    name: str = "weather"
    events: list[Event] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    sent: dict[tuple[str, int], list[Event]] = field(default_factory=dict)
    sealed: bool = False
    cancel_reason: str | None = None

    def answer(self, producer: str, epoch: int, first: int, events: list[Event]) -> str | int:
        """Return the reason of the refusal, or the last sequence of the batch; take its events in."""
        if epoch < self.epochs.get(producer, -1):
            return "PRODUCER_FENCED"
        sent = self.sent.get((producer, epoch), [])
        if first + len(events) - 1 <= len(sent):
            known = sent[first - 1 : first - 1 + len(events)]
            return self.events.index(known[-1]) + 1 if known == events else "PRODUCER_CONFLICT"
        if self.sealed:
            return "RUN_SEALED"
        if first != len(sent) + 1:
            return "PRODUCER_GAP"
        if [event.HasField("run_started") for event in [*self.events, *events]].count(True) != 1:
            return "INVALID_FIELD"
        if not (self.events or events[0].HasField("run_started")):
            return "INVALID_FIELD"
        self.epochs[producer] = epoch
        self.sent[producer, epoch] = sent + events
        self.events += events
        self.sealed = events[-1].HasField("run_finished")
        return len(self.events)


class EngineMachine(RuleBasedStateMachine):
    """Does the same to an engine, SQLite's, and to the model, and compares."""

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.runs: dict[RunKey, ModelledRun] = {}
        self.creations = 0
        self.engine: Engine = self.runner.run(self._open())

    async def _open(self) -> Engine:
        return await SQLiteEngine.open(Path(self.folder.name) / "lavant.db", self.clock)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.engine.close())
        self.engine = self.runner.run(self._open())

    @rule(key=keys)
    def create(self, key: RunKey) -> None:
        if key not in self.runs:
            self.creations += 1
            self.runs[key] = ModelledRun(self.creations)
        creation = self.engine.create_run(key, Run(name="weather"))
        if self.runs[key].name == "weather":
            self.runner.run(creation)
        else:
            with pytest.raises(ServiceError):
                self.runner.run(creation)

    @rule(key=keys, places=places, name=st.sampled_from(["", "weather", "other"]), data=st.data())
    def append(self, key: RunKey, places: list[tuple[str, int, int]], name: str, data: st.DataObject) -> None:
        expected: list[str | int] = []
        sent = []
        for producer, epoch, offset in places:
            run = self.runs.get(key)
            known = run.sent.get((producer, epoch), []) if run else []
            first = max(1, len(known) + 1 + offset)
            events = self._events(run, known, first, data)
            expected.append(self._answer(key, name, producer, epoch, first, events))
            create = RunSettings(name=name) if name else None
            sent.append(batch_of(events, first=first, producer_id=producer, epoch=epoch, create=create))

        async def answers() -> list[str | int]:
            receipts = [self.engine.append(key, batch) for batch in sent]
            return [await self._outcome(receipt) for receipt in receipts]

        assert self.runner.run(answers()) == expected

    def _answer(self, key: RunKey, name: str, producer: str, epoch: int, first: int, events: list[Event]) -> str | int:
        """Return the outcome of a batch, which creates the run if it has a name for it, and take its events in."""
        run = self.runs.get(key)
        if run is not None:
            return "RUN_EXISTS" if name not in ("", run.name) else run.answer(producer, epoch, first, events)
        if not name:
            return "RUN_NOT_FOUND"
        run = ModelledRun(self.creations + 1, name=name)
        answer = run.answer(producer, epoch, first, events)
        if isinstance(answer, int):
            self.creations += 1
            self.runs[key] = run
        return answer

    def _events(self, run: ModelledRun | None, known: list[Event], first: int, data: st.DataObject) -> list[Event]:
        count = data.draw(st.integers(0, 3), "resent")
        resent = known[first - 1 :][:count]
        fresh_count = data.draw(st.integers(0, 3), "fresh")
        if resent and not fresh_count:
            return resent
        fresh = [custom() for _ in range(fresh_count or 1)]
        start = [] if run and run.events else [run_started()]
        end = [run_finished()] if data.draw(st.integers(0, 9), "end") == 9 else []
        return [*resent, *start, *fresh, *end]

    async def _outcome(self, receipt: Awaitable[BatchReceipt]) -> str | int:
        try:
            return (await receipt).last_sequence
        except ServiceError as error:
            return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")

    @rule(key=keys, reason=st.sampled_from(["", "enough"]))
    def cancel(self, key: RunKey, reason: str) -> None:
        if (run := self.runs.get(key)) is None:
            return
        if not run.sealed and run.cancel_reason is None:
            run.cancel_reason = reason
        self.runner.run(self.engine.cancel_run(key, reason))

    @rule(key=keys)
    def delete(self, key: RunKey) -> None:
        run = self.runs.get(key)
        if run and run.sealed:
            del self.runs[key]
            self.runner.run(self.engine.delete_run(key))
        else:
            with pytest.raises(ServiceError):
                self.runner.run(self.engine.delete_run(key))

    @invariant()
    def runs_and_logs_are_as_modelled(self) -> None:
        self.runner.run(self._compare())

    async def _compare(self) -> None:
        for key, run in self.runs.items():
            events = await stored(self.engine, key)
            assert bare(events) == run.events
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert (await self.engine.get_run(key)).last_sequence == len(events)
            assert await pending_cancel(self.engine, key) == (None if run.sealed else run.cancel_reason)
        for tenant in ("acme", "bcme"):
            page = await self.engine.list_runs(RunQuery(tenant=tenant, limit=10))
            expected = [key for key in self.runs if key.tenant == tenant]
            expected.sort(key=lambda key: -self.runs[key].created)
            assert [run.run_id for run in page.runs] == [key.run_id for key in expected]

    def teardown(self) -> None:
        self.runner.run(self.engine.close())
        self.runner.close()
        self.folder.cleanup()


def jetstream_machine(server: NatsServer) -> type[EngineMachine]:
    """The same over JetStream, each example with a store of its own."""

    class JetStreamMachine(EngineMachine):
        @initialize()
        def open(self) -> None:
            self.location = fresh_location([server])
            super().open()

        async def _open(self) -> Engine:
            return await JetStreamEngine.open(self.location, self.clock)

        def teardown(self) -> None:
            self.runner.run(self.engine.close())
            self.runner.run(delete_streams(self.location))
            self.runner.close()
            self.folder.cleanup()

    return JetStreamMachine


def as_its_model(machine: type[EngineMachine], examples: int) -> None:
    modest = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=modest)


def test_sqlite_is_as_its_model() -> None:
    as_its_model(EngineMachine, 40)


def test_jetstream_is_as_its_model(nats: NatsServer) -> None:
    as_its_model(jetstream_machine(nats), 15)
