"""What print, notebooks and rich show of values that hold much."""

import pytest
from rich.console import Console

from lavant.client import AsyncClient, Evaluation, Row, RunState
from lavant.client._reading.table import MAX_CELL, MAX_ROWS, Table
from support.evaluated import cities, shout

ROWS = tuple(Row(id=f"case {number}", iteration=1, output="x" * 3_000) for number in range(500))
LARGE = Evaluation(id="e", state=RunState.SUCCEEDED, rows_succeeded=500, rows=ROWS, accuracy=0.5)


def test_a_table_says_how_many_rows_are_left_out() -> None:
    text = str(LARGE)
    assert len(text) < 2_000
    lines = text.splitlines()
    assert lines[0] == "e succeeded: 500 rows scored, accuracy 0.5"
    assert (len(lines), lines[-1]) == (MAX_ROWS + 3, f"  … and {500 - MAX_ROWS} more")


def test_a_repr_is_one_line() -> None:
    assert len(repr(LARGE)) < 200
    assert "\n" not in repr(LARGE)


def test_a_notebook_is_given_html_without_markup_of_values() -> None:
    html = Table.of("<b>", ["<i>"], [["<script>"]], 1).html()
    assert "<script>" not in html
    assert html.count("&lt;") == 3
    assert LARGE._repr_html_().count("<tr>") == MAX_ROWS + 1


def test_rich_prints_a_table() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(LARGE)
    assert "case 19" in captured.get()
    assert "case 20" not in captured.get()


@pytest.mark.parametrize("value", ["x" * 1_000, "a\nb", None, 0.123456789])
def test_a_cell_is_short_and_on_one_line(value: object) -> None:
    [[cell]] = Table.of("", ["a"], [[value]], 1).rows
    assert len(cell) <= MAX_CELL
    assert "\n" not in cell


async def test_an_evaluation_and_a_recording_are_shown(client: AsyncClient) -> None:
    evaluation = await client.evaluations.run(cities("oslo"), shout, evaluation_id="e")
    assert str(evaluation).splitlines()[1:] == ["  row   iteration  EqualsExpected  error", "  oslo  1          True"]
    async with client.runs.start("agent", run_id="r") as run, run.step("plan"):
        await run.text("It is cold.")
    recording = await client.runs.stream("r").collect()
    heading, columns, step = str(recording).splitlines()
    assert (heading, columns.split()[0], step.split()[0]) == ("r succeeded: It is cold.", "step", "plan")
    assert repr(recording).startswith("Recording(run_id='r', state='succeeded', text='It is cold.', <1 steps, ")


@pytest.mark.parametrize(
    ("dataset", "task", "said"),
    [
        ([], shout, "dataset must be a Dataset of pydantic-evals, .* not a list"),
        (cities("oslo"), "shout", "task must be a function of a case's inputs, not a str"),
    ],
)
async def test_what_is_no_dataset_or_task_is_refused(
    client: AsyncClient, dataset: object, task: object, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        await client.evaluations.run(dataset, task)  # type: ignore[arg-type]


async def test_a_coroutine_is_no_task(client: AsyncClient) -> None:
    async def task(city: str) -> str:
        return city

    with pytest.raises(TypeError, match="task must be a function, not a coroutine"):
        await client.evaluations.run(cities("oslo"), task("oslo"))  # type: ignore[arg-type]
