"""Evaluations of pydantic-evals' datasets, on a real server."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected, Evaluator, EvaluatorContext

from lavant.client import (
    AsyncClient,
    Client,
    EvaluationEvent,
    RunFailed,
    RunSealed,
    RunState,
)
from support.server import ServerProcess

SCRIPT = Path(__file__).with_name("evaluation_process.py")


@dataclass
class Length(Evaluator[Any, Any, Any]):
    """How long the output is."""

    version: str = "1"

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> dict[str, float | str]:
        return {"length": len(ctx.output), "size": "long" if len(ctx.output) > 4 else "short"}

    def get_evaluator_version(self) -> str:
        return self.version


@dataclass
class Broken(Evaluator[Any, Any, Any]):
    """Fails."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        raise LookupError("no judge")


def cities(*names: str) -> Dataset[Any, Any, Any]:
    cases = [Case(name=name, inputs=name, expected_output=name.upper()) for name in names]
    return Dataset(name="cities", cases=cases, evaluators=[EqualsExpected()])


def shout(city: str) -> str:
    return city.upper()


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
    assert evaluation.mean_scores == {"EqualsExpected": 1.0, "length": 4.0}


async def seen(client: AsyncClient, evaluation_id: str) -> list[EvaluationEvent]:
    return [event async for event in client.evaluations.stream(evaluation_id)]


async def test_a_stream_tells_as_it_goes(client: AsyncClient) -> None:
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


async def test_a_baseline_tells_what_is_better_and_worse(client: AsyncClient) -> None:
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


async def test_what_cannot_go_on_is_told(client: AsyncClient) -> None:
    await client.evaluations.run(cities("oslo"), shout, evaluation_id="done")
    with pytest.raises(RunSealed, match=r"evaluation done has ended \(succeeded\): run it under another evaluation_id"):
        await client.evaluations.run(cities("oslo"), shout, evaluation_id="done")
    with pytest.raises(ValueError, match="iterations must be 1 or more, not 0"):
        await client.evaluations.run(cities("oslo"), shout, iterations=0)


async def test_another_dataset_is_refused(client: AsyncClient) -> None:
    entered = asyncio.Event()

    async def stuck(city: str) -> str:
        if city == "rome":
            entered.set()
            await asyncio.Event().wait()
        return city.upper()

    first = client.evaluations.run(cities("oslo", "rome"), stuck, evaluation_id="e", max_concurrency=1)
    running = asyncio.create_task(first)
    await entered.wait()
    async for event in client.evaluations.stream("e"):
        if event.type == "row_complete":
            break
    other = Dataset(name="cities", cases=[Case(name="oslo", inputs="bergen")])
    with pytest.raises(ValueError, match="row 'oslo', iteration 1, of evaluation e has other inputs in the dataset"):
        await client.evaluations.run(other, shout, evaluation_id="e")
    with pytest.raises(ValueError, match="is not in the dataset"):
        await client.evaluations.run(cities("rome"), shout, evaluation_id="e")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def start_process(target: str, ran: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(SCRIPT), target, str(ran))


async def test_a_killed_evaluation_goes_on_where_it_stopped(
    server_process: ServerProcess, process_client: AsyncClient, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    process = await start_process(server_process.target, ran)
    stored = Counter[tuple[str, int]]()
    async for event in process_client.evaluations.stream("killed", wait_for_run=True):
        if event.type == "row_complete":
            stored[event.row.id, event.row.iteration] += 1
            if stored.total() == 300:
                process.kill()
                await process.wait()
                break
    before = await process_client.evaluations.get("killed")
    assert before.state is RunState.RUNNING
    ran.rename(tmp_path / "first")
    process = await start_process(server_process.target, ran)
    assert await process.wait() == 0
    after = await process_client.evaluations.wait("killed")
    assert (after.rows_succeeded, after.rows_failed, len(after.rows)) == (600, 0, 600)
    rows = [(row.id, row.iteration) for row in after.rows]
    assert len(set(rows)) == 600
    assert rows[: len(before.rows)] == [(row.id, row.iteration) for row in before.rows]
    run_again = Counter(ran.read_text().split())
    done_before = Counter(row.id for row in before.rows)
    assert run_again == Counter({f"case-{number}": 3 for number in range(200)}) - done_before
