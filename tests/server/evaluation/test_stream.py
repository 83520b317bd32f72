"""Runs finish, a rule selects them, workers receive them as samples."""

import asyncio

from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import DeleteRunRequest
from support.calls import create, get
from support.clock import ManualClock
from support.rules import Worker, create_rule, evaluated_runs, finish, get_rule, pass_time, results, scored
from support.server import Stubs
from support.status import refused


async def test_finished_runs_are_assigned_in_order_and_evaluated_once(stubs: Stubs) -> None:
    await finish(stubs, ["before"])
    rule = await create_rule(stubs, labels={"team": "blue"})
    assert (rule.revision, rule.evaluation_id) == (1, "lavant.rule.1")
    await create(stubs, "at-work")
    ids = await finish(stubs, [f"run-{number}" for number in range(20)])

    worker = await Worker(stubs).opened()
    assert await worker.got(20) == ids
    assert await worker.complete(*ids) == [False] * 20
    await worker.caught_up()
    worker.cut()

    events = await results(stubs)
    assert evaluated_runs(events) == ids
    assert scored(events) == [(run_id, "correct") for run_id in ids]
    row = next(event.row_finished for event in events if event.HasField("row_finished"))
    run = await get(stubs, "run-0")
    assert (row.rule_id, row.subject_name, row.subject_time) == ("rule", "weather", run.end_time)
    assert row.labels == {"team": "blue"}
    progress = (await get_rule(stubs)).progress
    assert (progress.runs_examined, progress.runs_selected, progress.runs_evaluated, progress.runs_failed) == (
        20,
        20,
        20,
        0,
    )
    segment = await get(stubs, rule.evaluation_id)
    assert (segment.kind, segment.state, segment.name) == (
        RunKind.RUN_KIND_EVALUATION,
        RunState.RUN_STATE_RUNNING,
        "rule",
    )


async def test_runs_that_finish_meanwhile_are_assigned_as_they_finish(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs, max_samples=3).opened()
    await worker.caught_up()
    finishing = asyncio.ensure_future(finish(stubs, [f"run-{number}" for number in range(40)]))
    done = 0
    while done < 40:
        await worker.got(done + 1)
        assert len(worker.samples) - done <= 3
        await worker.complete(worker.run_ids[done])
        done += 1
    ids = await finishing
    assert worker.run_ids == ids
    assert evaluated_runs(await results(stubs)) == ids
    assert [sample.attempt for sample in worker.samples] == [1] * 40


async def test_caught_up_is_sent_once_each_time(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    assert (await worker.caught_up()).runs_selected == 0
    await finish(stubs, ["one"])
    assert (await worker.caught_up()).runs_selected == 1
    await worker.complete("one")
    await finish(stubs, ["two"])
    await worker.caught_up()
    assert worker.kinds == ["opened", "caught_up", "samples", "caught_up", "samples", "caught_up"]


async def test_two_workers_share_a_rule(stubs: Stubs) -> None:
    await create_rule(stubs)
    first, second = (
        await Worker(stubs, "one", max_samples=5).opened(),
        await Worker(stubs, "two", max_samples=5).opened(),
    )
    ids = await finish(stubs, [f"run-{number}" for number in range(10)])
    await asyncio.gather(first.got(5), second.got(5))
    assert sorted(first.run_ids + second.run_ids) == sorted(ids)
    with refused("SAMPLE_LOST"):
        await first.complete(second.run_ids[0])


async def test_a_reconnect_receives_the_samples_after_its_token(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs, max_samples=4).opened()
    ids = await finish(stubs, ["a", "b"])
    await worker.got(2)
    token = worker.frames[-1].resume_token
    ids += await finish(stubs, ["c", "d"])
    await worker.got(4)
    worker.cut()
    await worker.complete("d")
    worker.samples.clear()

    await worker.opened(attempt=1, resume_token=token)
    await finish(stubs, ["e"])
    assert await worker.got(2) == ["c", "e"]
    worker.cut()
    worker.samples.clear()
    await worker.opened(attempt=2)
    assert await worker.got(4) == ["a", "b", "c", "e"]
    assert [sample.attempt for sample in worker.samples] == [1, 1, 1, 1]


async def test_a_dead_workers_samples_go_to_others_after_its_lease(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs)
    dead = await Worker(stubs, "dead", max_samples=2).opened(lease={"seconds": 10})
    await finish(stubs, ["a", "b", "c", "d"])
    assert await dead.got(2) == ["a", "b"]
    dead.cut()
    other = await Worker(stubs, "other", max_samples=3).opened()
    assert await other.got(2) == ["c", "d"]
    await pass_time(stubs, clock, 9)
    assert len(other.samples) == 2
    await pass_time(stubs, clock, 1)
    assert await other.got(3) == ["c", "d", "a"]
    assert other.samples[-1].attempt == 2
    assert await dead.complete("b") == [False]  # expired, but nobody else has it
    with refused("SAMPLE_LOST"):
        await dead.complete("a")
    await other.complete("a", "c", "d")
    assert sorted(evaluated_runs(await results(stubs))) == ["a", "b", "c", "d"]


async def test_a_live_stream_keeps_its_samples(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs, "one").opened(lease={"seconds": 9}, heartbeat_interval={"seconds": 60})
    await finish(stubs, ["a"])
    await worker.got(1)
    other = await Worker(stubs, "two").opened()
    await pass_time(stubs, clock, 30)
    assert (await other.caught_up()).runs_selected == 1
    assert not other.samples
    assert await worker.complete("a") == [False]


async def test_failures_are_tried_again_after_a_while_and_then_recorded(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs, max_attempts=3)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    for attempt, seconds in ((2, 1), (3, 2)):
        assert await worker.fail("a") is False
        await clock.awaited(seconds)
        clock.advance(seconds)
        await worker.got(attempt)
        assert worker.samples[-1].attempt == attempt
    assert await worker.fail("a", "no answer at all") is False
    assert (await get_rule(stubs)).progress.runs_failed == 1
    events = await results(stubs)
    (row,) = (event.row_finished for event in events if event.HasField("row_finished"))
    (score,) = row.scores
    assert (row.row_id, row.error.message) == ("a", "no answer at all")
    assert (score.name, score.evaluator.version, score.error.message) == ("correct", "1", "no answer at all")


async def test_lost_workers_count_as_attempts(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs, max_attempts=2)
    await finish(stubs, ["a"])
    for number in range(2):
        worker = await Worker(stubs, f"s{number}").opened(lease={"seconds": 10})
        await worker.got(1)
        worker.cut()
        await pass_time(stubs, clock, 10)
    last = await Worker(stubs, "last").opened()
    assert await last.caught_up(runs_failed=1)
    (row,) = (event.row_finished for event in await results(stubs) if event.HasField("row_finished"))
    assert row.error.type == "worker_lost"


async def test_a_session_that_ended_is_assigned_no_more(stubs: Stubs) -> None:
    await create_rule(stubs, max_attempts=1)
    leaving = await Worker(stubs).opened()
    await finish(stubs, ["a", "b"])
    await leaving.got(2)
    assert [await leaving.give_back("") for _ in range(2)] == [False, True]
    await finish(stubs, ["c"])
    with refused("SAMPLE_LOST"):
        await leaving.complete("a")
    assert leaving.run_ids == ["a", "b"]
    other = await Worker(stubs, "two").opened()
    assert await other.got(3) == ["a", "b", "c"]
    assert [sample.attempt for sample in other.samples] == [1, 1, 1]
    assert await other.complete("a", "b", "c") == [False] * 3


async def test_a_returned_sample_does_not_count(stubs: Stubs) -> None:
    await create_rule(stubs)
    leaving, staying = await Worker(stubs, "one", max_samples=1).opened(), Worker(stubs, "two")
    await finish(stubs, ["a"])
    await leaving.got(1)
    leaving.cut()
    assert await leaving.give_back("a") is False
    await staying.opened()
    await staying.got(1)
    assert staying.samples[0].attempt == 1
    assert await leaving.give_back("a") is True


async def test_the_same_said_again_is_a_duplicate(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    assert await worker.complete("a", correct=0.5) == [False]
    assert await worker.complete("a", correct=0.5) == [True]
    with refused("SAMPLE_LOST"):
        await worker.complete("a", correct=0.25)
    with refused("SAMPLE_LOST"):
        await worker.complete("unknown")
    assert len(scored(await results(stubs))) == 1


async def test_a_deleted_run_is_recorded_as_failed(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    worker.cut()
    await stubs.runs.DeleteRun(DeleteRunRequest(run_id="a"))
    await worker.opened(attempt=1)
    await worker.caught_up(runs_failed=1)
    (row,) = (event.row_finished for event in await results(stubs) if event.HasField("row_finished"))
    assert row.error.type == "run_deleted"


async def test_results_of_rules_are_never_evaluated(stubs: Stubs) -> None:
    rule = await create_rule(stubs, filter={"kinds": [RunKind.RUN_KIND_EVALUATION]})
    rule.labels["new"] = "segment"
    await finish(stubs, ["agent"])
    await finish(stubs, ["nightly"], kind=RunKind.RUN_KIND_EVALUATION)
    worker = await Worker(stubs).opened()
    assert await worker.got(1) == ["nightly"]
    assert (await worker.caught_up()).runs_examined == 1


async def test_a_clock_set_back_leaves_no_sample_stuck(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs)
    await finish(stubs, ["a", "b"])
    dead = await Worker(stubs, "dead", max_samples=1).opened()
    await dead.got(1)
    alive = await Worker(stubs, "alive", max_samples=1).opened()
    await alive.got(1)
    dead.cut()
    clock.jump(-3_600)
    other = await Worker(stubs, "other", max_samples=1).opened()
    await pass_time(stubs, clock, 60)
    assert await other.got(1) == ["a"]
    assert await alive.complete("b") == [False]


async def test_a_run_that_was_deleted_and_created_again_is_scored_as_of_now(stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await stubs.runs.DeleteRun(DeleteRunRequest(run_id="a"))
    await create(stubs, "a")
    await worker.complete("a")
    (row,) = [event.row_finished for event in await results(stubs) if event.HasField("row_finished")]
    assert row.subject_time.ToNanoseconds() == clock.time_ns()
