"""Runs that were scored are evaluated again: those with errors, without the present version, or all; scores stay."""

from datetime import UTC, datetime
from typing import Any

import pytest

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_pb2 import Evaluator, Score
from lavant.v1.rule_pb2 import BackfillMode
from lavant.v1.run_pb2 import Error
from support.clock import ManualClock
from support.rules import Worker, backfill, create_rule, delete_rule, finish, get_rule, update_rule
from support.scores import scores_of
from support.server import Stubs
from support.status import refused

ERRORS, VERSION, ALL = BackfillMode.values()[1:]
BROKE = Error(type="RuntimeError", message="it broke")


async def evaluate(clock: ManualClock, worker: Worker, version: str = "1", **said: float | None) -> None:
    """Record one score of each run, later than any other; None is a failure of the evaluator."""
    clock.advance(0.1)
    for run_id, value in said.items():
        evaluator = Evaluator(name="correct", version=version)
        score = Score(name="correct", evaluator=evaluator)
        if value is None:
            score.error.CopyFrom(BROKE)
        else:
            score.number = value
        await worker.say(run_id, scores=pb.SampleScores(scores=[score]))


async def again(stubs: Stubs, worker: Worker, mode: int, **window: Any) -> list[str]:
    """Have runs selected again; return them once all are examined."""
    before = len(worker.samples)
    await backfill(stubs, mode=mode, **window)
    while not (rule := await get_rule(stubs)).backfill.done:
        await worker.read()
    assert rule.backfill.mode == mode
    await worker.got(before + rule.backfill.runs_selected)
    return worker.run_ids[before:]


@pytest.fixture
async def worker(stubs: Stubs, clock: ManualClock) -> Worker:
    await finish(stubs, ["unseen"])
    await create_rule(stubs)
    opened = await Worker(stubs).opened()
    await finish(stubs, ["a", "b", "c"])
    await opened.got(3)
    await evaluate(clock, opened, a=1.0, b=None, c=0.5)
    return opened


async def test_errors_are_evaluated_until_there_are_none(stubs: Stubs, worker: Worker, clock: ManualClock) -> None:
    assert await again(stubs, worker, ERRORS) == ["b"]
    await evaluate(clock, worker, b=None)
    assert await again(stubs, worker, ERRORS) == ["b"]
    await evaluate(clock, worker, b=0.9)
    assert await again(stubs, worker, ERRORS) == []
    found = [score.score for score in await scores_of(stubs, subject_run_id="b")]
    assert sorted(score.HasField("error") for score in found) == [False, True, True]
    progress = (await get_rule(stubs)).progress
    assert (progress.runs_examined, progress.runs_selected, progress.runs_evaluated) == (3, 5, 5)


async def test_a_sample_that_was_recorded_as_failed_is_an_error_too(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs, evaluators=[], max_attempts=1)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await worker.fail("a")
    assert await again(stubs, worker, ERRORS) == ["a"]
    await evaluate(clock, worker, a=1.0)
    assert await again(stubs, worker, ERRORS) == []


async def test_runs_without_the_present_version_are_evaluated(stubs: Stubs, worker: Worker, clock: ManualClock) -> None:
    rule = await get_rule(stubs)
    del rule.evaluators[:]
    rule.evaluators.add(name="correct", version="2")
    await update_rule(stubs, rule)
    assert sorted(await again(stubs, worker, VERSION)) == ["a", "b", "c"]
    await evaluate(clock, worker, "2", a=1.0, b=None, c=1.0)
    assert await again(stubs, worker, VERSION) == ["b"]


async def test_all_are_evaluated_again_within_the_window(stubs: Stubs, worker: Worker, clock: ManualClock) -> None:
    clock.advance(4)
    now = datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)
    await finish(stubs, ["d"])
    await worker.got(4)
    await evaluate(clock, worker, d=1.0)
    assert await again(stubs, worker, ALL, created_after=now) == ["d"]
    await evaluate(clock, worker, d=1.0)
    assert sorted(await again(stubs, worker, ALL)) == ["a", "b", "c", "d"]


async def test_runs_that_are_held_or_deleted_are_left_out(stubs: Stubs, worker: Worker, clock: ManualClock) -> None:
    assert sorted(await again(stubs, worker, ALL)) == ["a", "b", "c"]
    await evaluate(clock, worker, a=1.0)
    assert await again(stubs, worker, ALL) == ["a"]  # b and c are held still


async def test_another_backfill_is_refused_meanwhile(stubs: Stubs, worker: Worker) -> None:
    worker.cut()
    await backfill(stubs, mode=ERRORS)
    await backfill(stubs, mode=ERRORS)
    for other in (BackfillMode.BACKFILL_MODE_UNSPECIFIED, ALL):
        with refused("BACKFILL_UNDER_WAY"):
            await backfill(stubs, mode=other)


async def test_a_version_that_no_evaluator_has_is_refused(stubs: Stubs) -> None:
    await create_rule(stubs, evaluators=[Evaluator(name="a")])
    with refused("INVALID_FIELD"):
        await backfill(stubs, mode=VERSION)
    with refused("INVALID_FIELD"):
        await backfill(stubs, mode=9)
    await delete_rule(stubs)


async def test_a_backfill_that_selects_nothing_is_reported(stubs: Stubs, worker: Worker) -> None:
    await worker.caught_up()
    frames = len(worker.frames)
    for count in (1, 2):
        await backfill(stubs, mode=ERRORS, created_before=datetime(2001, 1, count, tzinfo=UTC))
        await worker.caught_up()
        assert (await get_rule(stubs)).backfill.done
    assert worker.kinds[frames:] == ["caught_up"] * 2
