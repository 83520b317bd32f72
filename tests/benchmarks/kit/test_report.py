"""Tables and what is recorded of them."""

from pathlib import Path

import pytest

from benchmarks.kit.report import Aim, Records, Table

CPU = "server CPU µs"


def table(*ours: float, aims: tuple[Aim, ...] = ()) -> Table:
    """Return a table with one round per figure of lavant, beside a system that needs 10 µs and makes 100/s."""
    lavant = [{CPU: cpu, "runs/s": 1_000 / cpu} for cpu in ours]
    bare = [{CPU: 10.0, "runs/s": 100.0} for _ in ours]
    return Table(
        name="t",
        title="",
        measured={"lavant": lavant, "bare": bare},
        aims=aims,
        recorded=[CPU, "runs/s"],
        baseline="bare",
    )


def test_ratio_below_07_of_the_recorded_one_is_a_regression(tmp_path: Path) -> None:
    records = Records(tmp_path / "recorded.json")
    records.keep([table(20, 21, 19)])
    again = Records(tmp_path / "recorded.json")
    assert again.regressions([table(27, 28, 26)]) == {}
    assert list(again.regressions([table(30, 29, 31)])) == [("t", CPU), ("t", "runs/s")]


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim(unit=CPU, at_most=20), True),
        (Aim(unit=CPU, at_most=19), False),
        (Aim(unit=CPU, beside="bare", at_most=2), True),
        (Aim(unit="runs/s", beside="bare", at_least=0.51), False),
        (Aim(unit=CPU, beside="bare", beyond=True, at_most=9), False),
    ],
)
def test_aim_bounds_the_median_of_figures_ratios_or_differences(aim: Aim, *, met: bool) -> None:
    [(_, outcome)] = table(19, 20, 40, aims=(aim,)).outcomes()
    assert outcome is met


def test_aim_beside_a_system_left_out_has_no_outcome() -> None:
    assert table(20, aims=(Aim(unit=CPU, beside="redis", at_most=1),)).outcomes() == []


def test_cell_has_the_median_ratio_and_its_spread() -> None:
    lines = list(table(10, 20, 40).lines())
    assert any("10 → 2.00 (1.00-4.00)" in line for line in lines)
