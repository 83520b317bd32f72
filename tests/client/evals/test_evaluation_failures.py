"""Rows that failed did not pass: in accuracy, means, comparisons and the gate of the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected, Evaluator, EvaluatorContext

from client.cli.conftest import Lavant, lavant  # noqa: F401 - a fixture
from lavant.client import AsyncClient, Evaluation

Verdicts = dict[str, str]


@dataclass
class Gives(Evaluator[Any, Any, Any]):
    """Returns the configured value of each input, or raises it if it is an exception."""

    values: tuple[Any, ...]

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> Any:
        value = self.values[ctx.inputs % len(self.values)]
        if isinstance(value, Exception):
            raise value
        return value


DOWN = RuntimeError("out of quota")


def crash_but(*fine: int) -> Callable[[int], int]:
    def task(number: int) -> int:
        if number not in fine:
            raise ValueError("crashed")
        return number

    return task


async def evaluate(
    client: AsyncClient, task: Callable[[int], int], *evaluators: Evaluator[Any, Any, Any], baseline: str | None = None
) -> Evaluation:
    cases = [Case[Any, Any, Any](name=f"case {number}", inputs=number, expected_output=number) for number in range(10)]
    dataset = Dataset[Any, Any, Any](name="numbers", cases=cases, evaluators=evaluators)
    return await client.evaluations.run(dataset, task, baseline=baseline)


async def test_nine_crashed_rows_of_ten_are_not_passed(client: AsyncClient, lavant: Lavant) -> None:  # noqa: F811
    evaluation = await evaluate(client, crash_but(0), EqualsExpected(), Gives((1.0,)))
    assert (evaluation.accuracy, evaluation.mean_scores) == (0.1, {"EqualsExpected": 0.1, "Gives": 1.0})
    assert evaluation.error_counts == {"EqualsExpected": 9, "Gives": 9}
    assert (await client.evaluations.get(evaluation.id)).accuracy == 0.1
    low = await lavant("evaluations", evaluation.id, "--min-score", "Gives=0.9")
    assert (low.status, low.err) == (20, "lavant: 9 of 10 rows failed, more than 0\n")
    assert "(9 failed rows without)" in low.out
    allowed = await lavant("evaluations", evaluation.id, "--min-score", "Gives=0.9", "--max-failed-rows", "9")
    assert allowed.status == 0
    verdicts = ("--min-score", "accuracy=0.8", "--max-failed-rows", "9")
    assert (await lavant("evaluations", evaluation.id, *verdicts)).status == 20
    assert (await lavant("evaluations", evaluation.id, "--max-failed-rows", "8")).status == 20
    assert (await lavant("evaluations", evaluation.id)).status == 0


async def test_rows_whose_evaluator_failed_are_not_passed(client: AsyncClient, lavant: Lavant) -> None:  # noqa: F811
    evaluation = await evaluate(client, crash_but(*range(10)), Gives((True, DOWN)))
    assert (evaluation.accuracy, evaluation.rows_failed, evaluation.error_counts) == (0.5, 5, {"Gives": 5})
    assert (await lavant("evaluations", evaluation.id, "--min-score", "Gives=0.1")).status == 20


async def test_no_row_left_is_an_accuracy_of_zero(client: AsyncClient) -> None:
    assert (await evaluate(client, crash_but(), EqualsExpected())).accuracy == 0.0


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), None, object(), DOWN])
async def test_an_odd_score_fails_its_row_alone(client: AsyncClient, value: object) -> None:
    evaluation = await evaluate(client, crash_but(*range(10)), Gives((1.0, value, *[1.0] * 8)))
    assert evaluation.state == "succeeded"
    failed = [row.id for row in evaluation.rows if row.has_failed]
    assert failed == ["case 1"]


@pytest.mark.parametrize(
    ("evaluator", "verdicts"),
    [
        (EqualsExpected(), {"EqualsExpected": "worse"}),
        (Gives((1.0,)), {"Gives": "worse"}),
        (Gives(("class",)), {"Gives": "worse"}),
    ],
    ids=["verdicts", "numbers", "classes"],
)
async def test_crashes_are_worse_than_a_baseline(
    client: AsyncClient, evaluator: Evaluator[Any, Any, Any], verdicts: Verdicts
) -> None:
    good = await evaluate(client, crash_but(*range(10)), evaluator)
    for task in (crash_but(*range(9)), crash_but()):
        bad = await evaluate(client, task, evaluator, baseline=good.id)
        assert {one.name: one.verdict for one in bad.comparison} == verdicts
        assert [row.id for row in bad.comparison[0].failed] == [row.id for row in bad.rows if row.has_failed]
    better = await evaluate(client, crash_but(*range(10)), evaluator, baseline=bad.id)
    assert {one.verdict for one in better.comparison} <= {"better", "unchanged"}


async def test_a_comparison_says_why_there_is_none(client: AsyncClient) -> None:
    empty = await client.evaluations.run(Dataset[Any, Any, Any](name="none", cases=[]), abs)
    [nothing] = (await evaluate(client, crash_but(0), EqualsExpected(), baseline=empty.id)).comparison
    assert (nothing.name, nothing.verdict, nothing.reason) == ("", "not_comparable", "the baseline has no rows")
    crashed = await evaluate(client, crash_but(), EqualsExpected())
    [nothing] = (await evaluate(client, crash_but(), EqualsExpected(), baseline=crashed.id)).comparison
    assert nothing.reason == "no row has a score: see the rows' errors"
    other = Dataset[Any, Any, Any](name="other", cases=[Case[Any, Any, Any](name="else", inputs=1)])
    [nothing] = (await client.evaluations.run(other, abs, baseline=crashed.id)).comparison
    assert nothing.reason == "no row is in both evaluations"
