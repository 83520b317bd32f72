"""Evaluators that cannot be reached evaluate nothing: samples wait for them, whoever works."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from pydantic_evals.evaluators import Evaluator, EvaluatorContext

from lavant.client import Alert, AsyncClient, EvaluatedRun, ProcessedSamples
from lavant.client.evals import EvaluatorUnavailable
from lavant.client.evals.outages import is_outage, retry_after
from lavant.client.evals.worker import availability as _availability
from support.sampled import RULE, Cold, finish_runs, found_scores

RUNS = ["a", "b", "c", "d", "e"]
Patch = pytest.MonkeyPatch


@dataclass
class Judge(Evaluator[Any, Any, Any]):
    """Raises what `failing` makes, while there is something; counts how often it is asked."""

    failing: Callable[[], Exception] | None = None
    asked: list[str] = field(default_factory=list)
    asked_often: asyncio.Event = field(default_factory=asyncio.Event)

    async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> float:
        self.asked.append(ctx.attributes["run_id"])
        if len(self.asked) >= 12:
            self.asked_often.set()
        if self.failing is not None:
            raise self.failing()
        return 1.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: Patch) -> None:
    """Have pauses that a test can wait for."""
    monkeypatch.setattr(_availability, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(_availability, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(_availability, "_MAX_PAUSED", 0.3)


async def work(client: AsyncClient, *evaluators: Evaluator[Any, Any, Any], **more: Any) -> ProcessedSamples:
    async with asyncio.timeout(40):
        return await client.evaluations.process_stream(RULE, evaluators=evaluators, **{"until_caught_up": True, **more})


def rate_limited() -> Exception:
    return RuntimeError("429 rate limited")


async def test_an_outage_costs_no_sample(client: AsyncClient) -> None:
    await client.rules.create(RULE, max_attempts=2)
    await finish_runs(client, RUNS)
    judge = Judge(rate_limited)
    done = await work(client, judge)
    assert (done.evaluated, done.failed, done.waiting) == (0, 0, 5)
    assert done.error is not None
    assert done.error.message == "Judge: 429 rate limited"
    progress = (await client.rules.get(RULE)).progress
    assert (progress.runs_evaluated, progress.runs_failed, progress.samples_waiting) == (0, 0, 5)
    assert progress.last_error is not None
    assert not await found_scores(client)
    judge.failing = None
    assert (await work(client, judge)) == ProcessedSamples(evaluated=5)
    assert await found_scores(client) == Counter([(run_id, "Judge") for run_id in RUNS])


async def test_a_worker_pauses_with_one_line_and_resumes_by_itself(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.rules.create(RULE, max_attempts=2)
    await finish_runs(client, RUNS)
    judge, judged, told = Judge(rate_limited), asyncio.Event(), list[EvaluatedRun]()

    def note(one: EvaluatedRun) -> None:
        told.append(one)
        if sum(each.error is None for each in told) == len(RUNS):
            judged.set()

    with caplog.at_level(logging.INFO, "lavant.client"):
        working = asyncio.create_task(work(client, judge, until_caught_up=False, on_evaluated=note))
        async with asyncio.timeout(30):
            await judge.asked_often.wait()  # after the first five, one sample at a time tries
            judge.failing = None
            await judged.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    lines = [record.getMessage() for record in caplog.records if "evaluators" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith(f"rule {RULE}: all evaluators are unavailable; this worker pauses")
    assert "evaluators are available again" in lines[1]
    assert max(one.attempt for one in told) <= 2


async def test_one_evaluator_of_several_that_is_down_is_asked_again_alone(client: AsyncClient) -> None:
    await client.rules.create(RULE, max_attempts=2)
    await finish_runs(client, ["a"])
    judge, cold = Judge(rate_limited), Cold()
    other = Judge()
    other.get_default_evaluation_name = lambda: "other"  # type: ignore[method-assign]
    done = await work(client, judge, cold, other)
    assert done == ProcessedSamples(evaluated=1, returned=1)
    assert (len(judge.asked), len(other.asked)) == (2, 1)
    scores = {score.name: score async for score in client.runs.scores("a")}
    assert (scores["other"].value, scores["Cold"].value) == (1.0, True)
    assert scores["Judge"].error is not None
    assert scores["Judge"].error.retryable


async def test_an_evaluator_with_an_error_of_its_own_is_not_asked_again(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    judge = Judge(lambda: ValueError("expected 500 words"))
    assert await work(client, judge) == ProcessedSamples(evaluated=1)
    assert len(judge.asked) == 1


async def test_an_alert_says_that_the_evaluator_is_down(client: AsyncClient) -> None:
    low = Alert(name="low", score_name="Judge", below=0.5, window=timedelta(minutes=5))
    await client.rules.create(RULE, alerts=[low])
    await finish_runs(client, ["a"])
    # It may be tried again only in a minute: so it is delayed for as long as this test lasts.
    await work(client, Judge(lambda: EvaluatorUnavailable("no index", retry_after=60)))
    [status] = (await client.rules.get(RULE)).alert_statuses
    assert (status.state, status.obstacle) == ("cannot_fire", "evaluator_down")
    assert "1 samples wait for another attempt" in status.message
    assert "no index" in status.message


async def test_a_sample_of_a_rule_without_named_evaluators_fails_in_each_of_the_workers(client: AsyncClient) -> None:
    await client.rules.create(RULE, max_attempts=1)
    await finish_runs(client, ["a"])
    judge = Judge(rate_limited)
    assert (await work(client, judge)).failed == 1
    [group] = await client.scores.query(by=["name"], rules=[RULE])
    assert (group.name, group.count, group.error_rate) == ("Judge", 1, 1.0)


def with_status(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/")
    return httpx.HTTPStatusError("refused", request=request, response=httpx.Response(status, headers=headers))


class Coded(Exception):
    """As several libraries have it."""

    def __init__(self, **fields: object) -> None:
        super().__init__("it broke")
        self.__dict__.update(fields)


class APIConnectionError(Exception):
    """As openai and anthropic name it."""


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


OUTAGES = {
    "said": EvaluatorUnavailable(),
    "time limit": TimeoutError("took longer than 60 s"),
    "refused": ConnectionRefusedError(111, "Connection refused"),
    "name": socket.gaierror(-2, "Name or service not known"),
    "httpx connect": httpx.ConnectError("all attempts failed"),
    "httpx read": httpx.ReadTimeout("slow"),
    "httpx 429": with_status(429),
    "httpx 503": with_status(503),
    "httpx 401": with_status(401),
    "status_code": Coded(status_code=529),
    "status": Coded(status=500),
    "code": Coded(code=429),
    "grpc": Coded(code=lambda: grpc.StatusCode.UNAVAILABLE),
    "botocore": Coded(response={"ResponseMetadata": {"HTTPStatusCode": 429}}),
    "class": APIConnectionError(),
    "message 429": rate_limited(),
    "message http": RuntimeError("HTTP 503 Service Unavailable"),
    "message code": Exception("Error code: 529 - {'type': 'overloaded_error'}"),
    "no key": RuntimeError("The api_key client option must be set"),
    "no key variable": KeyError("OPENAI_API_KEY"),
    "no key value": ValueError("Missing API key: set ANTHROPIC_API_KEY"),
    "cause": caused(ValueError("no verdict"), ConnectionResetError()),
    "group": ExceptionGroup("all models failed", [rate_limited(), TimeoutError()]),
}
NO_OUTAGES = {
    "bug": TypeError("unsupported operand"),
    "number in a message": ValueError("expected 500 words, found 429"),
    "assertion": AssertionError("503 is no answer"),
    "lookup": KeyError("answer"),
    "httpx 400": with_status(400),
    "group of two kinds": ExceptionGroup("failed", [rate_limited(), TypeError()]),
    "talk of keys": ValueError("the output leaks an api key"),
    "own code": Coded(code="invalid"),
}


@pytest.mark.parametrize("name", [*OUTAGES, *NO_OUTAGES])
def test_which_failures_are_outages(name: str) -> None:
    assert is_outage({**OUTAGES, **NO_OUTAGES}[name]) is (name in OUTAGES)


def test_how_long_to_wait_is_what_the_failure_says() -> None:
    assert retry_after(EvaluatorUnavailable(retry_after=60)) == 60
    assert retry_after(with_status(429, **{"retry-after": "7"})) == 7
    assert retry_after(Coded(retry_after=1e9)) == 600
    assert retry_after(with_status(429, **{"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})) is None
    assert retry_after(ValueError()) is None
