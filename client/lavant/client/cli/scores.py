"""`lavant score` and `lavant scores`."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast, get_args

import typer

from lavant.client import AsyncClient, RecordedScore, ScoreChange, ScoreFilter, ScoreGroup, ScoreTrend
from lavant.client.cli.options import (
    Header,
    Json,
    Labels,
    Limit,
    RunId,
    ScoreLabels,
    labels_of,
    names_of,
    page_size,
    seconds_of,
    since_of,
)
from lavant.client.cli.output import Listing, first, score_text
from lavant.client.cli.session import command
from lavant.client.cli.statuses import BELOW_BOUND
from lavant.client.cli.untrusted import one_line
from lavant.client.scores import ScoreDimension

_VERDICTS = {"true": True, "false": False}
_Names = list[str] | None
_Item = TypeVar("_Item")


@command()
async def score(
    client: AsyncClient,
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the score: helpful.", show_default=False)],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="true, false, a number, or a label.", show_default=False)
    ],
    explanation: Annotated[str, typer.Option(metavar="TEXT", help="Reason, for people.", show_default=False)] = "",
    by: Annotated[
        str, typer.Option("--by", metavar="WHO", help="Evaluator: a person or a program.", show_default=False)
    ] = "",
    label: ScoreLabels = None,
    score_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="A score with the same ID is recorded once.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="A lower value is better, as of a latency.")
    ] = False,
) -> None:
    """Record a score of a run, such as feedback.

    The run may have ended long ago. Prints the score's ID.
    """
    recorded = await client.runs.score(
        run,
        name=name,
        value=_value(value),
        explanation=explanation,
        evaluator=by,
        labels=labels_of(label),
        score_id=score_id,
        higher_is_better=False if lower_is_better else None,
    )
    print(one_line(recorded))


def _value(text: str) -> float | bool | str:
    if text.lower() in _VERDICTS:
        return _VERDICTS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


@command()
async def scores(
    client: AsyncClient,
    rule: Annotated[_Names, typer.Option("--rule", metavar="RULE", help="Only of this rule; may be repeated.")] = None,
    name: Annotated[_Names, typer.Option("--name", metavar="NAME", help="Only of this name; may be repeated.")] = None,
    evaluator: Annotated[
        _Names, typer.Option("--evaluator", metavar="NAME", help="Only by this evaluator; may be repeated.")
    ] = None,
    version: Annotated[
        _Names,
        typer.Option("--version", metavar="VERSION", help="Only by this version of evaluators; may be repeated."),
    ] = None,
    run_name: Annotated[
        _Names, typer.Option("--run-name", metavar="NAME", help="Only of runs of this name; may be repeated.")
    ] = None,
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Only of this run.", show_default=False)] = "",
    label: Labels = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only of runs ended since: 90s, 30m, 2h, 7d, or ISO 8601."),
    ] = None,
    by: Annotated[
        str,
        typer.Option("--by", metavar="WHAT,...", help="Aggregate by rule, name, evaluator, version or run_name."),
    ] = "",
    bucket: Annotated[
        str | None, typer.Option("--bucket", metavar="TIME", help="Aggregate by intervals of this length: 1h, 1d.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="VERSION", help="Compare with this version of the evaluators.")
    ] = None,
    limit: Limit = 50,
    json: Json = False,
    header: Header = False,
) -> None:
    """List, aggregate or compare scores.

    Scores of the latest runs come first; --by and --bucket aggregate them. Output that is not a terminal gets
    tab-separated columns. With --against, the exit status is 20 if a score is significantly lower, or its error rate
    significantly higher, than with the other version.
    """
    dimensions = _dimensions(by)
    interval = None if bucket is None else seconds_of(bucket, "--bucket")
    wanted = ScoreFilter(
        rules=rule or (),
        names=name or (),
        evaluators=evaluator or (),
        versions=version or (),
        run_names=run_name or (),
        labels=labels_of(label),
        run_id=run,
        ended_after=since_of(since),
    )
    if against is not None:
        changes = await client.scores.compare(wanted, baseline=wanted.model_copy(update={"versions": [against]}))
        await _CHANGES.print(_each(changes), json=json, header=header)
        if any(ScoreTrend.REGRESSED in (change.trend, change.error_trend) for change in changes):
            raise typer.Exit(BELOW_BOUND)
    elif dimensions or interval is not None:
        groups = await client.scores.query(by=dimensions, bucket=interval, **dict(wanted))
        await _groups(dimensions, interval).print(_each(groups), json=json, header=header)
    else:
        found = client.scores.list(**dict(wanted), page_size=page_size(limit))
        await _SCORES.print(first(found, limit), json=json, header=header)


def _dimensions(by: str) -> list[ScoreDimension]:
    names, allowed = names_of(by.replace("-", "_")), get_args(ScoreDimension)
    for name in names:
        if name not in allowed:
            raise typer.BadParameter(f"--by must be of {', '.join(allowed)}, not {name!r}")
    return cast("list[ScoreDimension]", names)


async def _each(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    for item in items:
        yield item


def _score(score: RecordedScore) -> list[str]:
    text = score.error.message if score.error else score.explanation
    evaluator = f"{score.evaluator} {score.version}".strip()
    return [_time(score.time), score.run_id, score.run_name, score.rule_id, evaluator, score_text(score), text]


_SCORES = Listing(
    columns=("time", "run", "name", "rule", "evaluator", "score", "explanation"), row=_score, empty="no scores match"
)


def _groups(dimensions: Sequence[ScoreDimension], bucket: float | None) -> Listing[ScoreGroup]:
    sums = ("count", "errors", "error rate", "mean", "pass", "p50", "p95")

    def row(group: ScoreGroup) -> list[str]:
        named: dict[str, Any] = {**dict(group), "rule": group.rule_id}
        values = (group.error_rate, group.mean, group.pass_rate, group.percentiles.get(50), group.percentiles.get(95))
        return [
            *([_time(group.start)] if bucket else []),
            *(named[dimension] for dimension in dimensions),
            *(str(group.count), str(group.error_count), *map(_number, values)),
        ]

    return Listing(
        columns=[*(["time"] if bucket else []), *dimensions, *sums],
        row=row,
        numeric=[name.upper() for name in sums],
        empty="no scores match",
    )


def _change(change: ScoreChange) -> list[str]:
    means = (change.baseline_mean, change.candidate_mean)
    differences = (change.difference, change.difference_low, change.difference_high)
    rates = (change.baseline_error_rate, change.candidate_error_rate)
    trend, error_trend = (one.value.replace("_", " ") for one in (change.trend, change.error_trend))
    return [change.name, *map(_number, (*means, *differences)), trend, *map(_number, rates), error_trend]


_CHANGES = Listing(
    columns=(
        *("score", "baseline", "candidate", "difference", "low", "high", "trend"),
        *("baseline error rate", "candidate error rate", "error trend"),
    ),
    row=_change,
    empty="no scores match",
)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _time(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds") if time else ""
