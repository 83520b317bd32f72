"""Evaluations of pydantic-evals' datasets, on a real server."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from pydantic_evals import Case, Dataset, increment_eval_metric, set_eval_attribute
from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext
from pydantic_evals.lifecycle import CaseLifecycle
from tenacity import stop_after_attempt

from lavant.client import (
    AsyncClient,
    Client,
    EvaluationEvent,
    RunCancelled,
    RunFailed,
    RunState,
)
from support.evaluated import Brevity, Broken, Length, Stuck, cities, shout
from support.server import ServerProcess


async def test_an_evaluation_is_run_and_read(client: AsyncClient) -> None:
    evaluation = await client.evaluations.run(
        cities("oslo", "rome"), shout, name="shouting", iterations=2, evaluators=[Length()], labels={"a": "b"}
    )
    assert (evaluation.state, evaluation.rows_succeeded, evaluation.rows_failed) == (RunState.SUCCEEDED, 4, 0)
    assert evaluation.mean_scores == {"EqualsExpected": 1.0, "length": 4.0}
    assert [(row.id, row.iteration) for row in evaluation.rows] == [("oslo", 1), ("oslo", 2), ("rome", 1), ("rome", 2)]
    first = evaluation.rows[0]
    assert (first.input, first.output, first.expected) == ("oslo", "OSLO", "OSLO")
    assert {score.name: score.value for score in first.scores} == {
        "EqualsExpected": True, "length": 4.0, "size": "short",
    }  # fmt: skip
    assert {score.version for score in first.scores} == {"", "1"}
    run = await client.runs.get(evaluation.id)
    assert (run.kind, run.name, run.labels) == ("evaluation", "shouting", {"a": "b"})
    plan = (await anext(client.runs.events(run.id))).proto.run_started.evaluation
    assert (plan.dataset, plan.row_count, plan.iterations) == ("cities", 4, 2)
    assert [(one.name, one.version) for one in plan.evaluators] == [("EqualsExpected", ""), ("Length", "1")]
    assert await client.evaluations.get(run.id) == await client.evaluations.wait(run.id)
    assert (await client.evaluations.wait(run.id)).mean_scores == evaluation.mean_scores


async def test_failures_are_rows_and_cost_no_other_score(client: AsyncClient) -> None:
    async def picky(city: str) -> str:
        if city == "rome":
            raise ValueError("not rome")
        return city.upper()

    evaluation = await client.evaluations.run(cities("oslo", "rome"), picky, evaluators=[Broken(), Length()])
    oslo, rome = evaluation.rows
    assert (evaluation.rows_succeeded, evaluation.rows_failed) == (0, 2)
    assert rome.error is not None
    assert (rome.error.type, rome.error.message, rome.scores) == ("ValueError", "not rome", ())
    assert {score.name: score.value for score in oslo.scores} == {
        "EqualsExpected": True, "length": 4.0, "size": "short", "Broken": None,
    }  # fmt: skip
    [failure] = [score.error for score in oslo.scores if score.error]
    assert (failure.type, failure.message) == ("LookupError", "no judge")
    assert evaluation.mean_scores == {"EqualsExpected": 0.5, "length": 4.0}
    assert (evaluation.accuracy, evaluation.score_counts) == (0.5, {"EqualsExpected": 1, "length": 1})
    assert evaluation.error_counts == {"EqualsExpected": 1, "length": 1, "Broken": 2}


async def seen(client: AsyncClient, evaluation_id: str) -> list[EvaluationEvent]:
    return [event async for event in client.evaluations.stream(evaluation_id)]


async def test_a_stream_reports_progress(client: AsyncClient) -> None:
    gate = asyncio.Event()

    async def waiting(city: str) -> str:
        if city == "rome":
            await gate.wait()
        return city.upper()

    running = asyncio.create_task(
        client.evaluations.run(cities("oslo", "rome"), waiting, evaluation_id="e", max_concurrency=1)
    )
    told: list[EvaluationEvent] = []
    async for event in client.evaluations.stream("e", wait_for_run=True):
        told.append(event)
        if event.type == "progress" and event.rows_complete == 1:
            gate.set()
    evaluation = await running
    assert [event.type for event in told] == [
        "status", "progress", "row_complete", "progress", "row_complete", "progress", "status", "final",
    ]  # fmt: skip
    final = told[-1]
    assert final.type == "final"
    assert (final.result.accuracy, final.result.rows) == (1.0, evaluation.rows)
    assert [event.row.score for event in told if event.type == "row_complete"] == [1.0, 1.0]


async def test_an_evaluation_that_fails_says_so(client: AsyncClient) -> None:
    with pytest.raises(LookupError):
        async with client.runs.start("cities", run_id="e", kind="evaluation"):
            raise LookupError("no dataset")
    *_, status, last = await seen(client, "e")
    assert (status.type, last.type) == ("status", "error")
    assert last.type == "error"
    assert last.error.message == "no dataset"
    with pytest.raises(RunFailed):
        await client.evaluations.wait("e")


async def test_the_blocking_client_reads_them(process_client: AsyncClient, server_process: ServerProcess) -> None:
    evaluation = await process_client.evaluations.run(cities("oslo"), shout)

    def read() -> None:
        with Client(server_process.target) as client:
            *_, last = client.evaluations.stream(evaluation.id)
            assert last.type == "final"
            assert client.evaluations.wait(evaluation.id) == last.result
            assert [one.verdict for one in client.evaluations.compare(evaluation.id, evaluation.id)] == ["unchanged"]

    await asyncio.to_thread(read)


def answering(answers: dict[str, str]) -> Callable[[str], Awaitable[str]]:
    async def answer(city: str) -> str:
        return answers[city]

    return answer


async def test_a_baseline_shows_what_is_better_and_worse(client: AsyncClient) -> None:
    data = cities("a", "b", "c")
    before = await client.evaluations.run(data, answering({"a": "A", "b": "wrong", "c": "C"}), evaluators=[Length()])
    after = await client.evaluations.run(data, answering({"a": "no", "b": "B", "c": "nono!"}), evaluators=[Length()])
    found = {one.name: one for one in await client.evaluations.compare(after.id, before.id)}
    equal = found["EqualsExpected"]
    assert equal.verdict == "worse"
    assert equal.delta == pytest.approx(-1 / 3)
    assert ([row.id for row in equal.better], [row.id for row in equal.worse]) == (["b"], ["a", "c"])
    assert [row.id for row in found["size"].changed] == ["b", "c"]
    other = await client.evaluations.run(data, shout, evaluators=[Length(version="2")], baseline=before.id)
    verdicts = {one.name: one.verdict for one in other.comparison}
    assert verdicts == {"EqualsExpected": "better", "length": "not_comparable", "size": "not_comparable"}


async def test_a_lower_score_is_better_where_the_evaluator_says_so(client: AsyncClient) -> None:
    data = cities("a", "b")
    before = await client.evaluations.run(data, answering({"a": "AA", "b": "BB"}), evaluators=[Brevity()])
    after = await client.evaluations.run(data, answering({"a": "A", "b": "BBBB"}), evaluators=[Brevity()])
    found = {one.name: one for one in await client.evaluations.compare(after.id, before.id)}["Brevity"]
    assert (found.verdict, found.delta) == ("worse", 0.5)
    assert ([row.id for row in found.better], [row.id for row in found.worse]) == (["a"], ["b"])
    assert {score.higher_is_better for row in after.rows for score in row.scores if score.name == "Brevity"} == {False}


async def test_invalid_arguments_are_refused(client: AsyncClient) -> None:
    for arguments, said in (
        ({"iterations": 0}, "iterations must be 1 or more, not 0"),
        ({"max_concurrency": 0}, "max_concurrency must be 1 or more, not 0"),
        ({"producer_timeout": -1.0}, "producer_timeout"),
    ):
        with pytest.raises(ValueError, match=said):
            await client.evaluations.run(cities("oslo"), shout, **arguments)
    twice = cities("oslo")
    twice.cases.append(twice.cases[0])
    with pytest.raises(ValueError, match="two cases are named 'oslo'"):
        await client.evaluations.run(twice, shout)
    assert [run async for run in client.runs.list()] == []


async def test_a_row_is_durable_before_the_next_begins(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    restarting: list[asyncio.Task[None]] = []

    async def task(city: str) -> str:
        if city == "a":
            await server_process.kill()
            restarting.append(asyncio.create_task(server_process.start()))
        else:
            assert restarting[0].done()
        return city

    done = await process_client.evaluations.run(cities("a", "b"), task, max_concurrency=1)
    assert [row.error for row in done.rows] == [None, None]


@dataclass
class Verbose(Evaluator[Any, Any, Any]):
    """Returns the configured value, with a long explanation."""

    value: float

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluationReason:
        return EvaluationReason(value=self.value, reason="x" * 100_000)


async def test_odd_names_and_values_cost_no_row(client: AsyncClient) -> None:
    cases = [
        Case[Any, Any, Any](name="line\nbreak", inputs=1),
        Case[Any, Any, Any](name="x" * 300, inputs=2),
        Case[Any, Any, Any](inputs=["y" * 2_000_000], expected_output="z" * 2_000_000),
        Case[Any, Any, Any](inputs="\ud800"),
        Case[Any, Any, Any](name="middling", inputs="w" * 180_000, expected_output="w" * 180_000),
    ]

    def task(given: Any) -> Any:
        set_eval_attribute("seen", True)
        increment_eval_metric("cost", math.inf)
        increment_eval_metric("calls", 1)
        return given

    dataset = Dataset(name="odd", cases=cases, evaluators=[*[Verbose(1.0)] * 80, Verbose(math.nan)])
    done = await client.evaluations.run(dataset, task)
    assert [row.id[:7] for row in done.rows] == ["line br", "x" * 7, "case 3 ", "case 4 ", "middlin"]
    assert {(len(row.scores), row.score) for row in done.rows} == {(81, 1.0)}
    assert all("value=nan" in error.message for row in done.rows if (error := row.scores[-1].error))
    assert [row.scores[0].explanation for row in done.rows] == ["x" * 8_192] * 5
    assert done.rows[2].input["bytes"] == done.rows[2].output["bytes"] == 2_000_004
    assert done.rows[0].metrics == {"calls": 1.0}


async def test_accuracy_is_the_part_of_the_verdicts_that_passed(client: AsyncClient) -> None:
    answer = answering({"a": "A", "b": "wrong", "c": "C", "d": "wrong", "e": "E"})
    done = await client.evaluations.run(cities(*"abcde"), answer, evaluators=[Length()])
    assert done.accuracy == pytest.approx(0.6)
    assert (await client.evaluations.get(done.id)).accuracy == done.accuracy
    without = await client.evaluations.run(Dataset(name="n", cases=cities("a").cases), shout, evaluators=[Length()])
    assert (without.accuracy, without.mean_scores) == (None, {"length": 1.0})


class Counting(CaseLifecycle[Any, Any, Any]):
    """Counts what it is called for; cannot be made for one case."""

    seen: ClassVar[list[str]] = []

    def __init__(self, case: Case[Any, Any, Any]) -> None:
        super().__init__(case)
        if case.name == "rome":
            raise LookupError("no rome")

    async def setup(self) -> None:
        self.seen.append(f"setup {self.case.name}")

    async def prepare_context(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluatorContext[Any, Any, Any]:
        ctx.metrics["prepared"] = 1
        return ctx

    async def teardown(self, result: object) -> None:
        self.seen.append(f"teardown {type(result).__name__}")


async def test_a_lifecycle_and_retries_are_pydantic_evals_own(client: AsyncClient) -> None:
    tried: list[str] = []

    async def flaky(city: str) -> str:
        tried.append(city)
        if tried.count(city) < 3:
            raise OSError("not yet")
        return city.upper()

    done = await client.evaluations.run(
        cities("oslo", "rome"), flaky, lifecycle=Counting, retry_task={"stop": stop_after_attempt(3)}, max_concurrency=1
    )
    oslo, rome = done.rows
    assert (oslo.score, oslo.metrics, tried) == (1.0, {"prepared": 1.0}, ["oslo"] * 3)
    assert rome.error is not None
    assert rome.error.message == "no rome"
    assert Counting.seen == ["setup oslo", "teardown ReportCase"]


async def test_somebody_cancels_it(client: AsyncClient) -> None:
    task = Stuck("b")
    running = asyncio.create_task(client.evaluations.run(cities("a", "b"), task, evaluation_id="e", max_concurrency=1))
    await task.waits.wait()
    await client.runs.cancel("e", "too slow")
    with pytest.raises(RunCancelled, match="too slow"):
        await running
    ended = await client.evaluations.get("e")
    assert (ended.state, [row.id for row in ended.rows], ended.accuracy) == (RunState.CANCELLED, ["a"], 1.0)
    result = (await client.runs.get("e")).result
    assert result is not None
    assert result.evaluation is not None
    assert (result.evaluation.rows_succeeded, result.evaluation.accuracy) == (1, 1.0)


def run_blocking(target: str) -> None:
    with Client(target, timeout=20) as client:
        done = client.evaluations.run(cities("oslo", "rome"), shout, iterations=2, evaluation_id="e")
        assert (done.accuracy, len(done.rows)) == (1.0, 4)
        assert client.evaluations.run(cities("oslo", "rome"), shout, iterations=2, evaluation_id="e") == done
        assert [event.type for event in client.evaluations.stream("e")][-1] == "final"


async def test_the_blocking_client_runs_them(server_process: ServerProcess) -> None:
    await asyncio.to_thread(run_blocking, server_process.target)
    with Client(server_process.target) as client, pytest.raises(RuntimeError, match="await AsyncClient's"):
        client.evaluations.run(cities("oslo"), shout)
