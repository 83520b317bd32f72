"""Samples that are returned with errors are assigned after their delay, by whichever server, to whichever worker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_pb2 import Evaluator
from lavant.v1.run_pb2 import Error
from support.clock import ManualClock
from support.nats import fresh_location, without_streams
from support.rules import Worker, create_rule, finish, get_rule, pass_time, results, scored
from support.scores import scores_of
from support.server import Stubs, serving
from support.status import refused

DOWN = Error(type="RuntimeError", message="429 rate limited", retryable=True)


@pytest.fixture(params=["file", "nats"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Sequence[Stubs]]:
    """Two servers that share a store, or one server twice."""
    async with AsyncExitStack() as stack:
        more = {}
        if request.param == "nats":
            location = fresh_location([request.getfixturevalue("nats")])
            await stack.enter_async_context(without_streams(location))
            more["store"] = str(location)
        servers = [
            await stack.enter_async_context(serving(tmp_path, clock=clock, **more)) for _ in range(2 if more else 1)
        ]
        yield [servers[0].stubs, servers[-1].stubs]


async def test_a_returned_sample_is_delayed_and_its_attempt_does_not_count(
    pair: Sequence[Stubs], clock: ManualClock
) -> None:
    here, there = pair
    await create_rule(here, max_attempts=1)
    worker = await Worker(here).opened()
    await finish(here, ["a"])
    await worker.got(1)
    for _ in range(2):
        await worker.say("a", returned=pb.SampleReturn(delay={"seconds": 4}, error=DOWN))  # type: ignore[arg-type]
        worker.cut()
        other = await Worker(there, f"other-{len(worker.frames)}").opened()
        now = await other.caught_up(samples_delayed=1)
        assert (now.samples_waiting, now.runs_failed, now.last_error.message) == (1, 0, "429 rate limited")
        left = other.frames[-1].caught_up.next_retry_delay
        assert 0 < left.seconds + left.nanos / 1e9 <= 4
        assert not other.samples
        await pass_time(there, clock, 5)
        await other.got(1)
        assert other.samples[-1].attempt == 1
        worker = other
    await worker.complete("a")
    progress = (await get_rule(here)).progress
    assert (progress.runs_evaluated, progress.HasField("last_error")) == (1, False)


async def test_a_failure_is_delayed_as_long_as_its_worker_asks(pair: Sequence[Stubs], clock: ManualClock) -> None:
    here, there = pair
    await create_rule(here)
    worker = await Worker(here).opened()
    await finish(here, ["a"])
    await worker.got(1)
    await worker.say("a", failure=DOWN, retry_delay={"seconds": 6})
    other = await Worker(there, "two").opened()
    await pass_time(there, clock, 4)
    assert not other.samples
    await pass_time(there, clock, 3)
    worker.cut()
    await other.until(lambda one: bool(one.samples) or one.kinds[-1] == "caught_up")
    assert (await get_rule(there)).progress.samples_delayed == 0


async def test_the_last_failure_is_one_of_each_evaluator_of_rule_and_worker(stubs: Stubs) -> None:
    await create_rule(stubs, evaluators=[Evaluator(name="rule's", score_names=["tone", "grammar"])], max_attempts=1)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await worker.say("a", failure=DOWN, evaluators=[Evaluator(name="worker's"), Evaluator(name="tone")])
    assert scored(await results(stubs)) == [("a", "tone"), ("a", "grammar"), ("a", "worker's")]


async def test_the_last_failure_where_nobody_names_an_evaluator_is_a_score_too(stubs: Stubs) -> None:
    await create_rule(stubs, evaluators=[], max_attempts=1)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await worker.say("a", failure=DOWN)
    assert scored(await results(stubs)) == [("a", "evaluation")]


async def test_a_delay_that_is_too_long_is_refused(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    with refused("INVALID_FIELD"):
        await worker.say("a", returned=pb.SampleReturn(delay={"seconds": 601}))  # type: ignore[arg-type]


async def test_several_samples_are_returned_at_once(pair: Sequence[Stubs]) -> None:
    here, there = pair
    await create_rule(here, max_attempts=1)
    worker = await Worker(here, max_samples=3).opened()
    await finish(here, ["a", "b", "c", "d"])
    await worker.got(3)
    other = await Worker(there, "other", max_samples=2).opened()
    await other.got(1)
    returned = pb.SampleReturn(run_ids=["b", "a", "d", "unknown"], delay={"seconds": 600})  # type: ignore[arg-type]
    assert [await worker.say("", returned=returned) for _ in range(2)] == [False, True]
    progress = (await get_rule(there)).progress
    assert (progress.samples_delayed, progress.samples_held) == (2, 2)
    with refused("SAMPLE_LOST"):
        await worker.complete("a")
    assert await worker.complete("c") == [False]
    assert await other.complete("d") == [False]
    with refused("INVALID_FIELD", "returned.run_ids"):
        await worker.say("c", returned=returned)


async def test_a_score_of_a_rule_is_stored_once(stubs: Stubs) -> None:
    await create_rule(stubs, labels={"team": "blue"})
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await worker.complete("a", correct=0.25, brief=1.0)
    (row,) = [event.row_finished for event in (await results(stubs))[1:]]
    assert [(score.name, score.number) for score in row.scores] == [("correct", 0.25), ("brief", 1.0)]
    listed = await scores_of(stubs, rule_ids=["rule"])
    assert {(one.score.name, one.score.number) for one in listed} == {("correct", 0.25), ("brief", 1.0)}
    assert [(one.subject_run_id, one.subject_name, dict(one.labels)) for one in listed] == [
        ("a", "weather", {"team": "blue"})
    ] * 2
