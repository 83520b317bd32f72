"""`lavant scores`: scores of runs, one by one, added up, or compared."""

import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, cast, get_args

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavant.client import AsyncClient, RecordedScore, ScoreChange, ScoreFilter, ScoreGroup, ScoreVerdict
from lavant.client._scores import ScoreDimension
from lavant.client.cli import _session
from lavant.client.cli._lines import Header, print_header, print_json
from lavant.client.cli._options import ApiKey, Labels, Since, Target, labels_of, seconds_of, since_of
from lavant.client.cli._text import one_line, score_text

REGRESSED = 20
_Words = list[str] | None


def scores(
    rule: Annotated[_Words, typer.Option("--rule", metavar="RULE", help="By this rule; may be repeated.")] = None,
    name: Annotated[_Words, typer.Option("--name", metavar="NAME", help="Of this name; may be repeated.")] = None,
    evaluator: Annotated[
        _Words, typer.Option("--evaluator", metavar="NAME", help="By this evaluator; may be repeated.")
    ] = None,
    version: Annotated[
        _Words, typer.Option("--version", metavar="VERSION", help="Of this version; may be repeated.")
    ] = None,
    run_name: Annotated[
        _Words, typer.Option("--run-name", metavar="NAME", help="Of runs of this name; may be repeated.")
    ] = None,
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Of this run.", show_default=False)] = "",
    label: Labels = None,
    since: Since = None,
    by: Annotated[
        str,
        typer.Option("--by", metavar="WHAT,...", help="Add up by rule, name, evaluator, version, run_name."),
    ] = "",
    bucket: Annotated[
        str | None, typer.Option("--bucket", metavar="TIME", help="Add up by stretches of time: 1h, 1d.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="VERSION", help="Compare with this version of the evaluators.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="List at most so many; 0: all.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    header: Header = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """List scores, those of the latest runs first; with --by or --bucket, tell what they add up to.

    Into a pipe go lines of tab-separated columns. With --against, the exit status is 20 if a score is lower than that
    of the other version, or its error rate higher, and not by chance.
    """
    dimensions = _dimensions(by)
    length = None if bucket is None else seconds_of(bucket, "--bucket")
    wanted = ScoreFilter(
        rules=rule or (),
        names=name or (),
        evaluators=evaluator or (),
        versions=version or (),
        run_names=run_name or (),
        labels=labels_of(label),
        run_id=run,
        ended_after=since_of(since, datetime.now(UTC)),
    )

    async def work(client: AsyncClient) -> None:
        if against is not None:
            changes = await client.scores.compare(wanted, baseline=wanted.model_copy(update={"versions": [against]}))
            _print(changes, _CHANGE, map(_change, changes), json, header)
            if any(ScoreVerdict.REGRESSED in (change.verdict, change.error_verdict) for change in changes):
                raise typer.Exit(REGRESSED)
        elif dimensions or length is not None:
            groups = await client.scores.query(by=dimensions, bucket=length, **dict(wanted))
            _print(
                groups,
                [*_headings(dimensions, length), *_SUMS],
                (_group(one, dimensions, length) for one in groups),
                json,
                header,
            )
        else:
            found = [one async for one in _first(client, wanted, limit)]
            _print(found, _SCORE, map(_score, found), json, header)

    _session.run(work, target, api_key)


_SCORE = ("TIME", "RUN", "NAME", "RULE", "BY", "SCORE", "WHY")
_SUMS = ("COUNT", "ERRORS", "ERROR RATE", "MEAN", "PASS", "P50", "P95")
_CHANGE = (
    *("SCORE", "BEFORE", "NOW", "DIFFERENCE", "FROM", "TO", "VERDICT"),
    *("ERRORS BEFORE", "ERRORS NOW", "VERDICT OF ERRORS"),
)


def _dimensions(by: str) -> list[ScoreDimension]:
    names = [name for name in by.replace(" ", "").replace("-", "_").split(",") if name]
    allowed = get_args(ScoreDimension)
    for name in names:
        if name not in allowed:
            raise typer.BadParameter(f"--by must be of {', '.join(allowed)}, not {name!r}")
    return cast("list[ScoreDimension]", names)


async def _first(client: AsyncClient, wanted: ScoreFilter, limit: int) -> AsyncIterator[RecordedScore]:
    left = limit
    async for score in client.scores.list(**dict(wanted), page_size=min(limit, 1_000)):
        yield score
        left -= 1
        if left == 0:
            return


def _print(
    found: Sequence[BaseModel], headings: Sequence[str], rows: Iterable[Sequence[str]], json: bool, header: bool
) -> None:
    if json:
        for one in found:
            print_json(one)
    elif not sys.stdout.isatty():
        print_header(headings, header)
        for row in rows:
            print("\t".join(row))
    elif not found:
        typer.echo("no scores match", err=True)
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in headings:
            table.add_column(heading, no_wrap=heading != "WHY")
        for row in rows:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
        Console().print(table)


def _score(score: RecordedScore) -> list[str]:
    said = score.error.message if score.error else score.explanation
    who = f"{score.evaluator} {score.version}".strip()
    cells = (_time(score.time), score.run_id, score.run_name, score.rule_id, who, score_text(score), said)
    return [one_line(cell) for cell in cells]


def _headings(dimensions: Sequence[ScoreDimension], bucket: float | None) -> list[str]:
    return [*(["TIME"] if bucket else []), *(dimension.upper() for dimension in dimensions)]


def _group(group: ScoreGroup, dimensions: Sequence[ScoreDimension], bucket: float | None) -> list[str]:
    named: dict[str, Any] = {**dict(group), "rule": group.rule_id}
    values = (group.mean, group.pass_rate, group.percentiles.get(50), group.percentiles.get(95))
    return [
        *([_time(group.start)] if bucket else []),
        *(one_line(named[dimension]) for dimension in dimensions),
        str(group.count),
        str(group.error_count),
        _number(group.error_rate),
        *map(_number, values),
    ]


def _change(change: ScoreChange) -> list[str]:
    numbers = (
        change.baseline_mean,
        change.candidate_mean,
        change.difference,
        change.difference_low,
        change.difference_high,
    )
    rates = (change.baseline_error_rate, change.candidate_error_rate)
    return [
        one_line(change.name),
        *map(_number, numbers),
        _words(change.verdict),
        *map(_number, rates),
        _words(change.error_verdict),
    ]


def _words(verdict: ScoreVerdict) -> str:
    return verdict.value.replace("_", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _time(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds") if time else ""
