"""`lavant evaluations`: which evaluations there are, and whether one is good enough."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavant.client import AsyncClient, Evaluation, Run, WaitTimeout
from lavant.client.cli import _session
from lavant.client.cli._exit_status import status_of
from lavant.client.cli._lines import Header, print_header, print_json
from lavant.client.cli._options import ApiKey, Labels, Names, Since, States, Target
from lavant.client.cli._runs import STYLES
from lavant.client.cli._selection import Selection
from lavant.client.cli._text import age, measures, one_line
from lavant.client.cli._wait import NOT_ENDED

TOO_LOW = 20


def evaluations(
    evaluation: Annotated[str | None, typer.Argument(metavar="[EVALUATION]", help="One; without: a list.")] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            "--min-score", metavar="NAME=NUMBER", help="The least accuracy, or mean of a score; may be repeated."
        ),
    ] = None,
    max_failed_rows: Annotated[
        int | None,
        typer.Option(
            "--max-failed-rows",
            min=0,
            metavar="NUMBER",
            help="The most rows whose task or evaluators may have failed; 0 with --min-score.",
        ),
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Wait no longer.")] = None,
    state: States = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many; 0: all.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="JSON: one object a line.")] = False,
    header: Header = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """List evaluations, the newest first; or wait for one, and show what its rows add up to.

    A row whose task or evaluators failed did not pass: accuracy and means of verdicts count it so. Means of numbers are
    those of the rows that have one: raise --max-failed-rows only if that is good enough.

    Exit status of one: 0 it succeeded, and is within all bounds; 20 a score is below its --min-score or missing, or
    more rows failed than --max-failed-rows; 10 failed, 11 cancelled, 12 timed out, 13 abandoned; 124 not ended within
    --timeout; 1 lavant could not tell, 2 wrong usage.
    """
    least = dict(map(_least, min_score or ()))
    bounds = _Bounds(least, 0 if least and max_failed_rows is None else max_failed_rows)

    async def work(client: AsyncClient) -> None:
        if evaluation is None:
            await _list(client, Selection.of(state, ["evaluation"], name, label, since), limit, json, header)
        else:
            raise typer.Exit(await _check(client, evaluation, bounds, timeout, json))

    _session.run(work, target, api_key)


class _Bounds(NamedTuple):
    """What an evaluation must reach: `least` of each score, `max_failed` rows; None: any number."""

    least: dict[str, float]
    max_failed: int | None

    def broken(self, evaluation: Evaluation) -> Iterator[str]:
        """Say which bounds the evaluation does not keep."""
        if self.max_failed is not None and evaluation.rows_failed > self.max_failed:
            total = evaluation.rows_succeeded + evaluation.rows_failed
            yield f"{evaluation.rows_failed:,} of {total:,} rows failed, more than {self.max_failed:,}"
        found = measures(evaluation)
        for name, number in self.least.items():
            if name not in found:
                yield f"{name} is missing, at least {number:g} is wanted"
            elif not found[name] >= number:
                yield f"{name} is {found[name]:.4g}, less than {number:g}"


def _least(given: str) -> tuple[str, float]:
    name, equals, number = given.rpartition("=")
    try:
        if not equals or not name:
            raise ValueError(given)
        return name, float(number)
    except ValueError:
        raise typer.BadParameter(f"--min-score must be NAME=NUMBER, such as correctness=0.8, not {given!r}") from None


async def _list(client: AsyncClient, selection: Selection, limit: int, json: bool, header: bool) -> None:
    found: list[Run] = []
    async for run in selection.list(client, page_size=min(limit, 1_000)):
        found.append(run)
        if len(found) == limit:
            break
    if json or not sys.stdout.isatty():
        print_header(("evaluation", "name", "state", "scores"), header and not json)
        for run in found:
            if json:
                print_json(run)
            else:
                print("\t".join((run.id, one_line(run.name), run.state.value, _means(run))))
        return
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("EVALUATION", "NAME", "STATE", "ROWS", "SCORES", "AGE"):
        table.add_column(column, no_wrap=column != "NAME")
    for run in found:
        name = Text(one_line(run.name), no_wrap=True, overflow="ellipsis")
        state = Text(run.state.value, style=STYLES.get(run.state, ""))
        table.add_row(run.id, name, state, _rows(run), _means(run), age(run.created, now))
    Console().print(table)


async def _check(client: AsyncClient, evaluation_id: str, bounds: _Bounds, timeout: float | None, json: bool) -> int:
    try:
        await client.runs.wait(evaluation_id, timeout)
    except WaitTimeout as error:
        typer.echo(f"lavant: {error}: it goes on, wait again or longer", err=True)
        return NOT_ENDED
    ended = await client.evaluations.get(evaluation_id)
    if json:
        print_json(ended.model_dump(exclude={"rows", "comparison"}))
    else:
        print(_summary(ended, bounds.least))
    if status := status_of(ended.state):
        return status
    broken = list(bounds.broken(ended))
    for reason in broken:
        typer.echo(one_line(f"lavant: {reason}"), err=True)
    return TOO_LOW if broken else 0


def _summary(evaluation: Evaluation, least: dict[str, float]) -> str:
    failed = f", {evaluation.rows_failed:,} failed" if evaluation.rows_failed else ""
    lines = [f"{evaluation.id} {evaluation.state.value}: {evaluation.rows_succeeded:,} rows scored{failed}"]
    if evaluation.error:
        lines.append(one_line(f"{evaluation.error.type}: {evaluation.error.message}"))
    found = measures(evaluation)
    width = max((len(one_line(name)) for name in found), default=0)
    for name, mean in found.items():
        wanted = f"  (at least {least[name]:g})" if name in least else ""
        errors = evaluation.error_counts.get(name, 0)
        without = f"  ({errors:,} failed rows without)" if errors else ""
        lines.append(f"  {one_line(name):{width}}  {mean:.4g}{wanted}{without}")
    return "\n".join(lines)


def _means(run: Run) -> str:
    summary = run.result.evaluation if run.result else None
    means = sorted(summary.mean_scores.items()) if summary else []
    return one_line(" ".join(f"{name}={mean:.3g}" for name, mean in means))


def _rows(run: Run) -> str:
    summary = run.result.evaluation if run.result else None
    return f"{summary.rows_succeeded + summary.rows_failed:,}" if summary else ""
