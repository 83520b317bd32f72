"""What rows add up to: a failed row passes nothing, and is counted beside every mean."""

from collections.abc import Sequence

import pytest

from lavant.contract.summary import MAX_SCORE_NAMES, Sums
from lavant.v1.run_pb2 import EvaluationSummary

Values = Sequence[tuple[str, float | bool | str | None]]


def summed(*rows: tuple[bool, Values]) -> EvaluationSummary:
    sums = Sums()
    for failed, values in rows:
        sums.add(failed=failed, values=values)
    return sums.summary()


PASSED = (False, [("ok", True)])
CRASHED: tuple[bool, Values] = (True, [])


def test_a_failed_row_is_a_verdict_not_passed() -> None:
    summary = summed(PASSED, *[CRASHED] * 9)
    assert (summary.rows_succeeded, summary.rows_failed) == (1, 9)
    assert (summary.accuracy, dict(summary.mean_scores)) == (0.1, {"ok": 0.1})
    assert (dict(summary.score_counts), dict(summary.error_counts)) == ({"ok": 1}, {"ok": 9})


def test_the_order_of_rows_does_not_matter() -> None:
    assert summed(CRASHED, PASSED) == summed(PASSED, CRASHED)


def test_a_failed_evaluator_is_a_verdict_not_passed() -> None:
    summary = summed(PASSED, (True, [("ok", None), ("length", 4.0)]))
    assert (summary.accuracy, dict(summary.mean_scores)) == (0.5, {"ok": 0.5, "length": 4.0})
    assert dict(summary.error_counts) == {"ok": 1}


def test_a_failed_row_keeps_the_verdicts_that_it_has() -> None:
    summary = summed((True, [("ok", True), ("other", None)]))
    assert (summary.accuracy, dict(summary.error_counts)) == (1.0, {"other": 1})


def test_numbers_have_the_mean_of_the_rows_that_have_one() -> None:
    summary = summed((False, [("n", 3.0)]), (True, [("n", None)]), CRASHED)
    assert (dict(summary.mean_scores), dict(summary.error_counts)) == ({"n": 3.0}, {"n": 2})
    assert not summary.HasField("accuracy")


def test_where_all_rows_failed_nothing_passed() -> None:
    assert summed(CRASHED, CRASHED).accuracy == 0.0
    assert not summed().HasField("accuracy")


@pytest.mark.parametrize("value", ["class", float("nan"), float("inf")])
def test_what_is_no_number_has_no_mean(value: str | float) -> None:
    assert not summed((False, [("s", value)])).mean_scores


def test_a_copy_changes_alone() -> None:
    sums = Sums()
    sums.add(failed=False, values=PASSED[1])
    before = sums.copy()
    sums.add(failed=True, values=[])
    assert (before.summary().accuracy, sums.summary().accuracy) == (1.0, 0.5)


def test_names_are_bounded() -> None:
    assert (
        len(summed((False, [(str(name), 1.0) for name in range(MAX_SCORE_NAMES + 5)])).mean_scores) == MAX_SCORE_NAMES
    )
