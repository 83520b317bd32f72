"""`lavant evaluations`: list evaluations, or check that one is good enough."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from lavant.client import AsyncClient, Evaluation, Run, WaitTimeout
from lavant.client.cli.options import Header, Json, Labels, Limit, Names, Selection, Since, States
from lavant.client.cli.output import Listing, age, means, print_json, state_text
from lavant.client.cli.session import command, status_of
from lavant.client.cli.statuses import BELOW_BOUND, NOT_ENDED
from lavant.client.cli.untrusted import one_line


@command()
async def evaluations(
    client: AsyncClient,
    evaluation: Annotated[
        str | None, typer.Argument(metavar="[EVALUATION]", help="ID of the evaluation to check; without it, list.")
    ] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            "--min-score", metavar="NAME=NUMBER", help="Minimum of a score's mean, or of accuracy; may be repeated."
        ),
    ] = None,
    max_failed_rows: Annotated[
        int | None,
        typer.Option(
            "--max-failed-rows",
            min=0,
            metavar="NUMBER",
            help="Maximum number of rows whose task or evaluators failed; 0 with --min-score.",
            show_default="any",
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Maximum time to wait.", show_default="no limit")
    ] = None,
    state: States = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
    limit: Limit = 50,
    json: Json = False,
    header: Header = False,
) -> None:
    """List evaluations, or check one against bounds.

    Without EVALUATION, list evaluations, the newest first. With it, wait until the evaluation has ended, and print its
    summary. A row whose task or evaluators failed did not pass: accuracy and the means of assertions count it so. The
    mean of a numeric score is that of the rows that have one; raise --max-failed-rows only if that is acceptable.

    Exit status of a check: 0 the evaluation succeeded within all bounds; 20 a score is missing or below its
    --min-score, or more rows failed than --max-failed-rows; 10 failed, 11 cancelled, 12 timed out, 13 abandoned,
    124 not ended within --timeout; 1 error of lavant, 2 wrong usage.
    """
    minima = dict(map(_parse_minimum, min_score or ()))
    bounds = _Bounds(minima, 0 if minima and max_failed_rows is None else max_failed_rows)
    if evaluation is None:
        selection = Selection.parse(state, ["evaluation"], name, label, since, system_runs=True)
        await _EVALUATIONS.print(selection.list(client, limit), json=json, header=header)
    else:
        raise typer.Exit(await _check(client, evaluation, bounds, timeout, json))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Bounds of an evaluation: a minimum per score, and at most `max_failed` failed rows; None: any number."""

    minima: dict[str, float]
    max_failed: int | None

    def violations(self, evaluation: Evaluation) -> Iterator[str]:
        """Describe each bound that the evaluation violates."""
        if self.max_failed is not None and evaluation.rows_failed > self.max_failed:
            total = evaluation.rows_succeeded + evaluation.rows_failed
            yield f"{evaluation.rows_failed:,} of {total:,} rows failed, more than {self.max_failed:,}"
        found = means(evaluation)
        for name, minimum in self.minima.items():
            if name not in found:
                yield f"{name} is missing, expected at least {minimum:g}"
            elif not found[name] >= minimum:  # also for NaN
                yield f"{name} is {found[name]:.4g}, less than {minimum:g}"


def _parse_minimum(text: str) -> tuple[str, float]:
    name, equals, number = text.rpartition("=")
    try:
        if not equals or not name:
            raise ValueError(text)
        return name, float(number)
    except ValueError:
        raise typer.BadParameter(f"--min-score must be NAME=NUMBER, such as correctness=0.8, not {text!r}") from None


async def _check(client: AsyncClient, evaluation_id: str, bounds: _Bounds, timeout: float | None, json: bool) -> int:
    try:
        await client.runs.wait(evaluation_id, timeout)
    except WaitTimeout as error:
        typer.echo(f"lavant: {error}: the evaluation continues; wait again, or longer", err=True)
        return NOT_ENDED
    ended = await client.evaluations.get(evaluation_id)
    if json:
        print_json(ended.model_dump(exclude={"rows", "comparison"}))
    else:
        print(_summary(ended, bounds.minima))
    if status := status_of(ended.state):
        return status
    violations = list(bounds.violations(ended))
    for violation in violations:
        typer.echo(one_line(f"lavant: {violation}"), err=True)
    return BELOW_BOUND if violations else 0


def _summary(evaluation: Evaluation, minima: dict[str, float]) -> str:
    failed = f", {evaluation.rows_failed:,} failed" if evaluation.rows_failed else ""
    lines = [f"{evaluation.id} {evaluation.state.value}: {evaluation.rows_succeeded:,} rows scored{failed}"]
    if evaluation.error:
        lines.append(one_line(f"{evaluation.error.type}: {evaluation.error.message}"))
    found = means(evaluation)
    width = max((len(one_line(name)) for name in found), default=0)
    for name, mean in found.items():
        minimum = f"  (at least {minima[name]:g})" if name in minima else ""
        errors = evaluation.error_counts.get(name, 0)
        without = f"  ({errors:,} failed rows without)" if errors else ""
        lines.append(f"  {one_line(name):{width}}  {mean:.4g}{minimum}{without}")
    return "\n".join(lines)


def _means(run: Run) -> str:
    summary = run.result.evaluation if run.result else None
    found = sorted(summary.mean_scores.items()) if summary else []
    return " ".join(f"{name}={mean:.3g}" for name, mean in found)


def _cells(run: Run) -> list[str | Text]:
    summary = run.result.evaluation if run.result else None
    rows = f"{summary.rows_succeeded + summary.rows_failed:,}" if summary else ""
    return [run.id, run.name, state_text(run.state), rows, _means(run), age(run.created, datetime.now(UTC))]


_EVALUATIONS = Listing(
    columns=("evaluation", "name", "state", "scores"),
    row=lambda run: [run.id, run.name, run.state.value, _means(run)],
    headings=("EVALUATION", "NAME", "STATE", "ROWS", "SCORES", "AGE"),
    cells=_cells,
    numeric=("ROWS", "AGE"),
    empty="no evaluations match",
)
