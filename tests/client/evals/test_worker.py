"""A worker that judges samples, against a server that does what good ones seldom do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from pydantic_evals.evaluators import Evaluator, EvaluatorContext

from lavant.client import AsyncClient, EvaluatedRun, ProcessedSamples, RuleNotFound, StreamDisplaced, Unavailable
from lavant.v1 import evaluation_service_pb2 as pb
from support.scripted import Context, abort, played, status
from support.scripted_samples import SampleAct, SampleScript, caught_up, end, for_ever, opened, samples

LOST = status(grpc.StatusCode.FAILED_PRECONDITION, "SAMPLE_LOST")


@dataclass
class Ended(Evaluator[Any, Any, Any]):
    """Whether a run ended well; counts how often it is asked."""

    asked: list[str] = field(default_factory=list)

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        self.asked.append(ctx.attributes["state"])
        return bool(ctx.attributes["state"] == "succeeded")


@dataclass
class Hanging(Evaluator[Any, Any, Any]):
    """Never returns; sets an event when it is called."""

    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        self.began.set()
        await asyncio.Event().wait()
        return True


def playing(*frames: pb.SampleRunsResponse, then: Callable[[], Awaitable[None]] = for_ever) -> SampleAct:
    """An act that sends frames."""

    async def act(request: pb.SampleRunsRequest, context: Context) -> AsyncIterator[pb.SampleRunsResponse]:
        for frame in frames:
            yield frame
        await then()

    return act


def refusing(code: grpc.StatusCode, reason: str, *frames: pb.SampleRunsResponse) -> SampleAct:
    """An act that ends with a refusal."""

    async def act(request: pb.SampleRunsRequest, context: Context) -> AsyncIterator[pb.SampleRunsResponse]:
        for frame in frames:
            yield frame
        await abort(context, status(code, reason))

    return act


async def evaluated_by(client: AsyncClient, *evaluators: Evaluator[Any, Any, Any], **more: Any) -> ProcessedSamples:
    more.setdefault("until_caught_up", True)
    async with asyncio.timeout(20):
        return await client.evaluations.process_stream("quality", evaluators=evaluators or [Ended()], **more)


def outcomes(script: SampleScript) -> dict[str, str | None]:
    return {request.run_id: request.WhichOneof("outcome") for request in script.completed if request.run_id}


async def test_samples_are_evaluated_and_reported() -> None:
    script = SampleScript(playing(opened("Ended"), samples("a", "b"), caught_up()))
    told: list[EvaluatedRun] = []
    async with played(script) as client:
        done = await evaluated_by(
            client, labels={"feeling": "neutral"}, max_concurrency=3, lease=2, worker="w", on_evaluated=told.append
        )
    assert done == ProcessedSamples(evaluated=2, failed=0, lost=0)
    assert sorted(judged.run.id for judged in told) == ["a", "b"]
    (request,) = script.requests
    assert (request.rule_id, request.worker_id, request.max_samples, request.lease.seconds) == ("quality", "w", 3, 2)
    *completions, parting = script.completed
    assert (parting.run_id, parting.session_id, parting.HasField("returned")) == ("", request.session_id, True)
    for completed in completions:
        assert completed.session_id == request.session_id != ""
        assert dict(completed.scores.labels) == {"feeling": "neutral"}
        assert [(score.name, score.passed) for score in completed.scores.scores] == [("Ended", True)]


async def test_the_stream_is_resumed_by_the_same_session() -> None:
    planned = playing(opened(), samples("a", token="t7"), end(reconnect=True))
    cut = refusing(grpc.StatusCode.UNAVAILABLE, "", opened(), samples("b", token="t8"))
    script = SampleScript(planned, cut, playing(opened(), samples("c", token="t9"), caught_up()))
    async with played(script) as client:
        assert (await evaluated_by(client)).evaluated == 3
    assert [request.attempt for request in script.requests] == [1, 2, 3]
    assert [request.resume_token for request in script.requests] == ["", "te", "t8"]
    assert len({(request.session_id, request.worker_id) for request in script.requests}) == 1


async def test_a_sample_that_is_lost_is_dropped() -> None:
    script = SampleScript(playing(opened(), samples("a", "b"), caught_up()), answers=[LOST])
    told: list[EvaluatedRun] = []
    async with played(script) as client:
        assert await evaluated_by(client, on_evaluated=told.append) == ProcessedSamples(evaluated=1, failed=0, lost=1)
    assert len(told) == 1


async def test_a_sample_assigned_twice_is_evaluated_once() -> None:
    evaluator = Ended()
    script = SampleScript(
        playing(opened(), samples("a"), samples("a", token="t2", attempt=2), caught_up()), answers=[LOST]
    )
    async with played(script) as client:
        assert await evaluated_by(client, evaluator) == ProcessedSamples(evaluated=1, failed=0, lost=0)
    assert evaluator.asked == ["succeeded"]
    assert [request.WhichOneof("outcome") for request in script.completed] == ["scores", "scores", "returned"]


async def test_a_run_that_cannot_be_read_is_a_failure() -> None:
    script = SampleScript(playing(opened(max_attempts=1), samples("a", "b"), caught_up()), unreadable=["a"])
    async with played(script) as client:
        assert await evaluated_by(client) == ProcessedSamples(evaluated=1, failed=1, lost=0)
    assert outcomes(script) == {"a": "failure", "b": "scores"}
    [failure] = [request.failure for request in script.completed if request.run_id == "a"]
    assert failure.type.endswith("RunNotEnded")


async def test_scores_that_are_refused_are_a_failure() -> None:
    refused = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "scores.scores[0].name must be set")
    script = SampleScript(playing(opened(max_attempts=1), samples("a"), caught_up()), answers=[refused])
    told: list[EvaluatedRun] = []
    async with played(script) as client:
        assert (await evaluated_by(client, on_evaluated=told.append)).failed == 1
    assert [request.WhichOneof("outcome") for request in script.completed] == ["scores", "failure", "returned"]
    assert told[0].error is not None
    assert told[0].error.message == "scores.scores[0].name must be set"


async def test_a_failure_that_is_retried_at_once_is_evaluated_again() -> None:
    answers = asyncio.Event()

    async def acting(request: pb.SampleRunsRequest, context: Context) -> AsyncIterator[pb.SampleRunsResponse]:
        yield opened(max_attempts=2)
        yield samples("a")
        await script.completions(1)
        yield samples("a", token="t3", attempt=2)
        yield caught_up("t4")
        answers.set()
        await for_ever()

    script = SampleScript(acting, unreadable=["a"], answers_after=answers)
    async with played(script) as client:
        assert await evaluated_by(client) == ProcessedSamples(failed=1, returned=1)


async def test_a_failure_that_is_tried_again_is_waited_for() -> None:

    async def acting(request: pb.SampleRunsRequest, context: Context) -> AsyncIterator[pb.SampleRunsResponse]:
        yield opened(max_attempts=2)
        yield samples("a")
        yield caught_up()
        await failed.wait()
        yield samples("a", token="t3", attempt=2)
        yield caught_up("t4")
        await for_ever()

    failed = asyncio.Event()
    script = SampleScript(acting, unreadable=["a"])
    async with played(script) as client:
        assert await evaluated_by(client, on_evaluated=lambda _: failed.set()) == ProcessedSamples(failed=1, returned=1)


async def test_samples_after_catching_up_are_evaluated_too() -> None:
    answers, both = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    def note(judged: EvaluatedRun) -> None:
        told.append(judged.run.id)
        if len(told) == 2:
            both.set()

    async def acting(request: pb.SampleRunsRequest, context: Context) -> AsyncIterator[pb.SampleRunsResponse]:
        yield opened()
        yield samples("a")
        yield caught_up()
        await script.completions(1)
        yield samples("b", token="t3")
        answers.set()
        await both.wait()
        yield samples("c", token="t4")
        yield caught_up("t5")
        await for_ever()

    script = SampleScript(acting, answers_after=answers)
    async with played(script) as client:
        assert (await evaluated_by(client, on_evaluated=note)).evaluated == 3


async def test_a_stream_that_ends_for_good_ends_the_work() -> None:
    script = SampleScript(playing(opened(), samples("a", "b"), end(reconnect=False)), unreadable=["a"])
    async with played(script) as client:
        done = await evaluated_by(client, until_caught_up=False)
    assert done == ProcessedSamples(evaluated=1, returned=1)


async def test_a_worker_that_is_cancelled_gives_its_samples_back() -> None:
    script = SampleScript(playing(opened(), samples("a", "b")))
    evaluator = Hanging()
    async with played(script) as client:
        work = asyncio.create_task(evaluated_by(client, evaluator, until_caught_up=False))
        await evaluator.began.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert [(told.run_id, told.session_id) for told in script.completed] == [("", script.requests[0].session_id)]
    assert script.completed[0].HasField("returned")


async def test_what_a_handler_raises_ends_the_work() -> None:
    def handle(judged: EvaluatedRun) -> None:
        raise LookupError(judged.run.id)

    script = SampleScript(playing(opened(), samples("a")))
    async with played(script) as client:
        with pytest.raises(LookupError, match="a"):
            await evaluated_by(client, on_evaluated=handle, until_caught_up=False)


@pytest.mark.parametrize(
    ("code", "reason", "raised"),
    [
        (grpc.StatusCode.ABORTED, "STREAM_DISPLACED", StreamDisplaced),
        (grpc.StatusCode.NOT_FOUND, "RULE_NOT_FOUND", RuleNotFound),
    ],
    ids=["displaced", "deleted"],
)
async def test_what_the_server_refuses_ends_the_work(
    code: grpc.StatusCode, reason: str, raised: type[Exception]
) -> None:
    script = SampleScript(refusing(code, reason, opened(), samples("a")))
    async with played(script) as client:
        with pytest.raises(raised):
            await evaluated_by(client, Hanging())
    assert not outcomes(script)


async def test_a_server_that_is_gone_for_long_ends_the_work() -> None:
    async with AsyncClient("127.0.0.1:9", timeout=0.2) as client:
        with pytest.raises(Unavailable):
            await evaluated_by(client, reconnect_timeout=0)


async def test_evaluators_that_the_rule_names_must_be_there() -> None:
    script = SampleScript(playing(opened("Ended", "correctness")))
    async with played(script) as client:
        with pytest.raises(ValueError, match="rule quality requires the scores correctness"):
            await evaluated_by(client)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"evaluators": []}, "evaluators must be one or more"),
        ({"max_concurrency": 0}, "max_concurrency must be 1 to 1,000, not 0"),
        ({"timeout": -1}, "timeout must be a number of seconds"),
        ({"lease": -1}, "lease must be a number of seconds"),
    ],
    ids=["evaluators", "max_concurrency", "timeout", "lease"],
)
async def test_invalid_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    async with AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(ValueError, match=said):
            await client.evaluations.process_stream("quality", **{"evaluators": [Ended()], **arguments})
