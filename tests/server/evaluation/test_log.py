"""Segments: long ones are followed by others, also where the server died between two steps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from lavant.internal.v1.system_record_pb2 import SamplesAssigned, SamplesReturned, SamplesSelected, SystemRecord
from lavant.server.errors import ServiceError
from lavant.server.evaluation import coordinator as coordinator_module
from lavant.server.evaluation.coordinator import Coordinator
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.log import Record, RuleLog, log_of, segment_of
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.store.system_logs import SystemLogs, system_event
from lavant.v1.event_pb2 import Event
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run, RunFinished, RunKind, RunState
from support.calls import get
from support.clock import ManualClock
from support.engines import refused
from support.rules import Worker, create_rule, evaluated_runs, finish, get_rule, results
from support.server import Stubs

RULE = RunKey("acme", "rule")
FIRST = Record(rule=Rule(rule_id="rule", revision=1), segment=1)
END = Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED))


async def test_a_long_segment_is_followed_by_another(stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_module, "MOST_ROWS", 4)
    await create_rule(stubs)
    ids = await finish(stubs, [f"run-{number}" for number in range(10)])
    worker = await Worker(stubs, max_samples=3).opened()
    for number, run_id in enumerate(ids):
        await worker.got(number + 1)
        await worker.complete(run_id)
    rule = await get_rule(stubs)
    assert (rule.evaluation_id, rule.revision, rule.progress.runs_evaluated) == ("lavant.rule.3", 1, 10)
    assert worker.run_ids == ids
    assert [len(evaluated_runs(await results(stubs, segments=count))) for count in (1, 2, 3)] == [4, 8, 10]


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Engine]:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield engine
    await engine.close()


@pytest.fixture
def log(engine: Engine, clock: ManualClock) -> RuleLog:
    return RuleLog(RULE, engine, SystemLogs(engine, clock))


@asynccontextmanager
async def started(engine: Engine, clock: ManualClock) -> AsyncIterator[Coordinator]:
    """The coordinator of a server that has just started."""
    coordinator = Coordinator(RULE, engine, clock)
    yield coordinator
    await coordinator.idle()


@pytest.fixture
async def record(engine: Engine, clock: ManualClock, log: RuleLog) -> Record:
    """A rule whose first segment has a sample that "one" holds, and one that waits."""
    assert await log.append(FIRST, after=None)
    async with started(engine, clock) as first:
        selected = SamplesSelected(run_ids=["a", "b"], runs_examined=5, live="123456789012345678901")
        await first.decide(lambda _: [system_event(SystemRecord(samples_selected=selected))])
        expire_time = Timestamp(seconds=2_000_000_000)
        assigned = SamplesAssigned(worker_id="w", session_id="one", run_ids=["a"], expire_time=expire_time)
        await first.decide(lambda _: [system_event(SystemRecord(samples_assigned=assigned))])
    return await log.get()


def check_carried(ledger: Ledger) -> None:
    """Fail unless a ledger is that of the rule above."""
    assert (ledger.position, ledger.examined, ledger.selected) == (123456789012345678901, 5, 2)
    assert [sample.run_id for sample in ledger.held_by("one")] == ["a"]
    assert [sample.run_id for sample in ledger.free(1_999_999_999_000_000_000)] == ["b"]


async def test_sealed_and_no_more(engine: Engine, clock: ManualClock, record: Record) -> None:
    await SystemLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    async with started(engine, clock) as after:
        await after.read()
        assert after.record.segment == 2
        check_carried(after.ledger)


async def test_sealed_and_recorded_but_not_begun(
    engine: Engine, clock: ManualClock, log: RuleLog, record: Record
) -> None:
    async with started(engine, clock) as before:
        await before.read()
        ledger = before.ledger
    await SystemLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    assert await log.append(record.following(record.rule, ledger), after=record)
    async with started(engine, clock) as after:
        await after.read()
        assert after.record.segment == 2
        check_carried(after.ledger)


async def test_another_coordinator_begins_a_segment_meanwhile(
    engine: Engine, clock: ManualClock, record: Record
) -> None:
    """The first has an old view throughout, and finds out by its appends."""
    async with started(engine, clock) as first, started(engine, clock) as second:
        await first.read()

        async def same(rule: Rule, ledger: Ledger) -> Rule:
            return rule

        await second.revise(same)
        returned = system_event(SystemRecord(samples_returned=SamplesReturned(run_ids=["a"])))
        await first.decide(lambda ledger: [returned] if ledger.samples["a"].session_id else [])
        assert first.record.segment == second.record.segment == 2
        await second.read()
        assert [sample.run_id for sample in second.ledger.free(0)] == ["a", "b"]


async def test_two_coordinators_decide_in_turn_on_what_both_did(
    engine: Engine, clock: ManualClock, record: Record
) -> None:
    def select(run_id: str, ledger: Ledger) -> list[Event]:
        selected = SamplesSelected(run_ids=[run_id], runs_examined=1, live="9")
        return [] if run_id in ledger.samples else [system_event(SystemRecord(samples_selected=selected))]

    async with started(engine, clock) as first, started(engine, clock) as second:
        for number in range(5):
            for one in (first, second):
                run_id = f"run-{number}"
                await one.decide(partial(select, run_id))
        await first.read()
        assert [*first.ledger.samples] == ["a", "b", *(f"run-{number}" for number in range(5))]
        assert first.ledger.examined == 10


async def test_deleted_but_not_cleared_away(engine: Engine, clock: ManualClock, log: RuleLog, record: Record) -> None:
    assert await log.append(None, after=record)
    async with started(engine, clock) as after:
        with refused("RULE_NOT_FOUND"):
            await after.read()
        await after.delete()
    assert (await engine.get_run(segment_of(RULE, 1))).state == RunState.RUN_STATE_SUCCEEDED
    assert await log.find() is None
    with pytest.raises(ServiceError):
        await engine.get_run(log_of(RULE))


async def test_created_but_not_written(engine: Engine, log: RuleLog) -> None:
    await engine.create_run(log_of(RULE), Run(kind=RunKind.RUN_KIND_EVALUATION, name="rule"))
    assert await log.find() is None
    assert await log.append(FIRST, after=None)
    assert not await log.append(FIRST, after=None)


async def test_a_segment_that_was_created_and_not_begun(engine: Engine, clock: ManualClock, record: Record) -> None:
    await SystemLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    async with started(engine, clock) as first:
        await first.read()
    run = await engine.get_run(segment_of(RULE, 2))
    assert run.last_sequence == 1
    assert run.labels == {"lavant.results": "rule"}


async def test_deleted_before_it_was_begun(engine: Engine, clock: ManualClock, log: RuleLog) -> None:
    """Whoever read the record before may begin the segment yet: it must find an end there."""
    assert await log.append(FIRST, after=None)
    async with started(engine, clock) as one:
        await one.delete()
    assert (await engine.get_run(segment_of(RULE, 1))).state == RunState.RUN_STATE_SUCCEEDED


async def test_records_of_the_server_are_not_shown_to_readers(stubs: Stubs) -> None:
    await create_rule(stubs)
    await finish(stubs, ["a"])
    worker = await Worker(stubs).opened()
    await worker.got(1)
    await worker.complete("a")
    shown = [str(event.WhichOneof("payload")) for event in await results(stubs)]
    assert shown == ["run_started", "row_finished"]
    assert (await get(stubs, "lavant.rule.1")).last_sequence == 4
    assert not any(UnknownFieldSet(event) for event in await results(stubs))
