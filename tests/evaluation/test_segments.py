"""Segments: long ones are followed by others, also where the server died between two steps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.errors import LavantError
from lavant.server.evaluation import desk as desk_module
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.record import Record, log_of, log_run, segment_of
from lavant.server.evaluation.rulebook import Entry, Rulebook
from lavant.server.model import RunKey
from lavant.server.store.own_logs import OwnLogs
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_pb2 import Event, SampleReturned, SamplesDrawn, SamplesLeased
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RunFinished, RunState
from support.clock import ManualClock
from support.engines import refused
from support.rules import Worker, create_rule, finish, get_rule, judged, results
from support.server import Stubs

RULE = RunKey("acme", "rule")
END = Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED))


async def test_a_long_segment_is_followed_by_another(stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "MOST_ROWS", 4)
    await create_rule(stubs)
    ids = await finish(stubs, [f"run-{number}" for number in range(10)])
    worker = await Worker(stubs, max_samples=3).opened()
    for number, run_id in enumerate(ids):
        await worker.got(number + 1)
        await worker.complete(run_id)
    rule = await get_rule(stubs)
    assert (rule.evaluation_id, rule.revision, rule.progress.runs_judged) == ("lavant.rule.3", 1, 10)
    assert worker.run_ids == ids
    assert [len(judged(await results(stubs, segments=count))) for count in (1, 2, 3)] == [4, 8, 10]


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Engine]:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield engine
    await engine.close()


@asynccontextmanager
async def desk(engine: Engine, clock: ManualClock) -> AsyncIterator[Desk]:
    """A desk as a server has it that has just started."""
    desk = Desk(RULE, engine, clock, Rulebook(engine, clock))
    yield desk
    await desk.idle()


@pytest.fixture
async def entry(engine: Engine, clock: ManualClock) -> Entry:
    """A rule whose first segment has a sample that "one" holds, and one that waits."""
    book = Rulebook(engine, clock)
    assert await book.add(RULE, Record(rule=Rule(rule_id="rule", revision=1), segment=1))
    async with desk(engine, clock) as first:
        drawn = SamplesDrawn(run_ids=["a", "b"], runs_seen=5, position_json='{"position":"123456789012345678901"}')
        await first.decide(lambda _: [Event(samples_drawn=drawn)])
        expire_time = Timestamp(seconds=2_000_000_000)
        leased = SamplesLeased(worker_id="w", session_id="one", run_ids=["a"], expire_time=expire_time)
        await first.decide(lambda _: [Event(samples_leased=leased)])
    return await book.get(RULE)


def check_carried(ledger: Ledger) -> None:
    """Fail unless a ledger is that of the rule above."""
    assert (ledger.position, ledger.seen, ledger.drawn) == (123456789012345678901, 5, 2)
    assert [sample.run_id for sample in ledger.held_by("one")] == ["a"]
    assert [sample.run_id for sample in ledger.free(1_999_999_999_000_000_000)] == ["b"]


async def test_sealed_and_no_more(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    await OwnLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    async with desk(engine, clock) as after:
        await after.refresh()
        assert after.entry.record.segment == 2
        check_carried(after.ledger)


async def test_sealed_and_recorded_but_not_begun(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    async with desk(engine, clock) as before:
        await before.refresh()
        ledger = before.ledger
    await OwnLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    assert await Rulebook(engine, clock).replace(RULE, entry, entry.record.following(ledger))
    async with desk(engine, clock) as after:
        await after.refresh()
        assert after.entry.record.segment == 2
        check_carried(after.ledger)


async def test_another_desk_rolls_meanwhile(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    """The first has an old view throughout, and finds out by its appends."""
    async with desk(engine, clock) as first, desk(engine, clock) as second:
        await first.refresh()

        async def same(rule: Rule, ledger: Ledger) -> Rule:
            return rule

        await second.revise(same)
        returned = Event(sample_returned=SampleReturned(run_id="a"))
        await first.decide(lambda ledger: [returned] if ledger.samples["a"].session_id else [])
        assert first.entry.record.segment == second.entry.record.segment == 2
        await second.refresh()
        assert [sample.run_id for sample in second.ledger.free(0)] == ["a", "b"]


async def test_two_desks_decide_in_turn_on_what_both_did(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    def draw(run_id: str, ledger: Ledger) -> list[Event]:
        drawn = SamplesDrawn(run_ids=[run_id], runs_seen=1, position_json='{"position":"9"}')
        return [] if run_id in ledger.samples else [Event(samples_drawn=drawn)]

    async with desk(engine, clock) as first, desk(engine, clock) as second:
        for number in range(5):
            for one in (first, second):
                run_id = f"run-{number}"
                await one.decide(partial(draw, run_id))
        await first.refresh()
        assert [*first.ledger.samples] == ["a", "b", *(f"run-{number}" for number in range(5))]
        assert first.ledger.seen == 10


async def test_deleted_but_not_cleared_away(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    assert await Rulebook(engine, clock).close(RULE, entry)
    async with desk(engine, clock) as after:
        with refused("RULE_NOT_FOUND"):
            await after.refresh()
        await after.delete()
    assert (await engine.get_run(segment_of(RULE, 1))).state == RunState.RUN_STATE_SUCCEEDED
    assert await Rulebook(engine, clock).find(RULE) is None
    with pytest.raises(LavantError):
        await engine.get_run(log_of(RULE))


async def test_created_but_not_written(engine: Engine, clock: ManualClock) -> None:
    await engine.create_run(log_of(RULE), log_run("rule"))
    book = Rulebook(engine, clock)
    assert await book.find(RULE) is None
    assert await book.add(RULE, Record(rule=Rule(rule_id="rule"), segment=1))
    assert not await book.add(RULE, Record(rule=Rule(rule_id="rule"), segment=1))


async def test_a_segment_that_was_created_and_not_begun(engine: Engine, clock: ManualClock, entry: Entry) -> None:
    await OwnLogs(engine, clock).append(segment_of(RULE, 1), 3, [END])
    async with desk(engine, clock) as first:
        await first.refresh()
    run = await engine.get_run(segment_of(RULE, 2))
    assert run.last_sequence == 1
    assert run.labels == {"lavant.results": "rule"}


async def test_deleted_before_it_was_begun(engine: Engine, clock: ManualClock) -> None:
    """Whoever read the record before may begin the segment yet: it must find an end there."""
    book = Rulebook(engine, clock)
    assert await book.add(RULE, Record(rule=Rule(rule_id="rule", revision=1), segment=1))
    async with desk(engine, clock) as one:
        await one.delete()
    assert (await engine.get_run(segment_of(RULE, 1))).state == RunState.RUN_STATE_SUCCEEDED
