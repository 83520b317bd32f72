"""`lavant rules`: which finished runs are evaluated."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, cast, get_args

import typer

from lavant.client import AlertState, AlertStatus, AsyncClient, Rule
from lavant.client._wire import json_text as _json
from lavant.client.cli.alerts import EXAMPLES, SYNTAX, format_alert, parse_alerts
from lavant.client.cli.groups import examples, group
from lavant.client.cli.options import (
    Header,
    Json,
    Kinds,
    Labels,
    RuleId,
    Since,
    States,
    labels_of,
    since_of,
    usage_error,
)
from lavant.client.cli.output import Listing, age, print_json
from lavant.client.cli.session import command
from lavant.client.cli.untrusted import one_line
from lavant.client.rules import Again

_Seconds = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", show_default=False)]
_Tokens = Annotated[int | None, typer.Option(min=0, metavar="TOKENS", show_default=False)]

rules = group("rules", "Create and change rules of online evaluation.")


@rules.command(
    epilog=examples(
        "lavant rules create quality --rate 0.1 --evaluator correctness",
        "lavant rules create slow --name 'weather-*' --min-duration 30",
        *(f"lavant rules create quality --alert '{alert}'" for alert in EXAMPLES),
    )
)
@command()
async def create(
    client: AsyncClient,
    rule: RuleId,
    rate: Annotated[float, typer.Option("--rate", min=0, max=1, help="Fraction of the matching runs to evaluate.")] = 1,
    evaluator: Annotated[
        list[str] | None,
        typer.Option("--evaluator", metavar="NAME", help="Name of an evaluator that workers have; may be repeated."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Only runs of this name, with * and ?; may be repeated."),
    ] = None,
    kind: Kinds = None,
    label: Labels = None,
    state: States = None,
    min_duration: _Seconds = None,
    max_duration: _Seconds = None,
    min_tokens: _Tokens = None,
    max_tokens: _Tokens = None,
    has_error: Annotated[
        bool | None, typer.Option("--error/--no-error", help="Only runs that ended with an error, or without one.")
    ] = None,
    input_contains: Annotated[str, typer.Option(metavar="TEXT", show_default=False)] = "",
    output_contains: Annotated[str, typer.Option(metavar="TEXT", show_default=False)] = "",
    salt: Annotated[
        str, typer.Option(metavar="TEXT", help="Select other runs than rules of the same rate with another salt.")
    ] = "",
    score_label: Annotated[
        list[str] | None,
        typer.Option("--score-label", metavar="KEY=VALUE", help="Add this label to the scores; may be repeated."),
    ] = None,
    max_attempts: Annotated[int, typer.Option(min=1, max=20, help="Maximum number of attempts per run.")] = 5,
    alert: Annotated[
        list[str] | None,
        typer.Option("--alert", metavar="ALERT", help=f"{SYNTAX}; may be repeated.", show_default=False),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Select no runs until `lavant rules resume`.")] = False,
) -> None:
    """Create a rule: it selects runs that finish from now on, and `lavant evaluate` evaluates them.

    Creating the same rule again changes nothing. Without --kind, a rule selects runs of agents.
    """
    labels, score_labels, alerts = labels_of(label), labels_of(score_label, "--score-label"), parse_alerts(alert)
    try:
        created = await client.rules.create(
            rule,
            kinds=kind or (),
            names=name or (),
            labels=labels,
            states=state or (),
            min_duration=min_duration,
            max_duration=max_duration,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            has_error=has_error,
            input_contains=input_contains,
            output_contains=output_contains,
            sample_rate=rate,
            salt=salt,
            evaluators=evaluator or (),
            score_labels=score_labels,
            paused=paused,
            max_attempts=max_attempts,
            alerts=alerts,
        )
    except ValueError as error:
        raise usage_error(error) from None
    print(one_line(f"created {created.id}; its results are in run {created.evaluation_id}"))


@rules.command("list", epilog=examples("lavant rules list"))
@command()
async def list_(client: AsyncClient, json: Json = False, header: Header = False) -> None:
    """List rules, the newest first.

    Output that is not a terminal gets tab-separated columns: rule, state (active or paused), rate, and how many runs
    were examined, selected, evaluated, and failed to be evaluated.
    """
    await _RULES.print(client.rules.list(), json=json, header=header)


@rules.command(epilog=examples("lavant rules show quality"))
@command()
async def show(client: AsyncClient, rule: RuleId, json: Json = False) -> None:
    """Show a rule: its filter, evaluators, alerts and progress."""
    found = await client.rules.get(rule)
    if json:
        print_json(found)
    else:
        _print(found)


@rules.command(epilog=examples("lavant rules pause quality"))
@command()
async def pause(client: AsyncClient, rule: RuleId) -> None:
    """Stop selecting runs; `lavant rules backfill` can select those that finish meanwhile."""
    _print(await client.rules.update(rule, paused=True))


@rules.command(epilog=examples("lavant rules resume quality"))
@command()
async def resume(client: AsyncClient, rule: RuleId) -> None:
    """Select runs again that finish from now on."""
    _print(await client.rules.update(rule, paused=False))


@rules.command(
    epilog=examples(
        "lavant rules backfill quality --since 7d", "lavant rules backfill quality --again errors --since 2h"
    )
)
@command()
async def backfill(
    client: AsyncClient,
    rule: RuleId,
    since: Since = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Only runs created before, written like --since.")
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(
            "--again",
            metavar="WHICH",
            help="Evaluate again runs that the rule has scored: errors, version (without a score in the present "
            "version of the rule's evaluators), or all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Select from earlier runs that the rule has not examined, or with --again from those it has scored.

    Runs that finish meanwhile are evaluated first. Earlier scores stay.
    """
    after, before = since_of(since), since_of(until, "--until")
    if again not in (None, *get_args(Again)):
        raise typer.BadParameter(f"--again must be one of {', '.join(get_args(Again))}, not {again!r}")
    which = cast("Again | None", again)
    _print(await client.rules.backfill(rule, created_after=after, created_before=before, again=which))


@rules.command(epilog=examples("lavant rules delete quality"))
@command()
async def delete(client: AsyncClient, rule: RuleId) -> None:
    """Delete a rule and its samples; its scores stay."""
    await client.rules.delete(rule)
    print(one_line(f"deleted {rule}"))


def _row(rule: Rule) -> list[str]:
    progress = rule.progress
    counts = (progress.runs_examined, progress.runs_selected, progress.runs_evaluated, progress.runs_failed)
    return [rule.id, "paused" if rule.paused else "active", f"{rule.sample_rate:g}", *map(str, counts)]


_COLUMNS = ("rule", "state", "rate", "examined", "selected", "evaluated", "failed")
_HEADINGS = (*map(str.upper, _COLUMNS), "AGE")
_RULES = Listing(
    columns=_COLUMNS,
    row=_row,
    headings=_HEADINGS,
    cells=lambda rule: [*_row(rule), age(rule.created, datetime.now(UTC))],
    numeric=_HEADINGS[2:],
    empty="there are no rules",
)


def _print(rule: Rule) -> None:
    """Print a rule, one line per fact."""
    print(one_line(f"{rule.id} is {_row(rule)[1]}"))
    for name, text in _facts(rule):
        print(f"  {name:10} {one_line(text)}")


def _facts(rule: Rule) -> Iterator[tuple[str, str]]:
    progress, past = rule.progress, rule.backfill
    wanted = rule.filter.model_dump(mode="json", exclude_defaults=True)
    yield "selects", f"{rule.sample_rate:g} of {_json.encode(wanted) if wanted else 'all agents'}"
    if rule.evaluators:
        yield "evaluators", ", ".join(f"{one.name} {one.version}".strip() for one in rule.evaluators)
    statuses = {status.name: status for status in rule.alert_statuses}
    for alert in rule.alerts:
        yield "alert", format_alert(alert)
        if alert.name in statuses:
            yield "", _alert_state(statuses[alert.name])
    yield (
        "progress",
        f"{progress.runs_examined:,} runs examined, {progress.runs_selected:,} selected, "
        f"{progress.runs_evaluated:,} evaluated, {progress.runs_failed:,} failed",
    )
    if progress.samples_waiting or progress.samples_held:
        yield (
            "samples",
            f"{progress.samples_waiting:,} waiting, {progress.samples_delayed:,} of them for another attempt; "
            f"{progress.samples_held:,} assigned to workers",
        )
    if progress.last_error is not None:
        yield "last error", f"{progress.last_error.type}: {progress.last_error.message}"
    if past is not None:
        state = "done" if past.done else "running"
        again = f" again ({past.again})" if past.again else ""
        yield "backfill", f"{state}{again}: {past.runs_examined:,} runs examined, {past.runs_selected:,} selected"
    yield "results", rule.evaluation_id


def _alert_state(status: AlertStatus) -> str:
    """Describe an alert's state; the message of one that cannot fire includes it."""
    if status.state is AlertState.CANNOT_FIRE:
        return status.message + (" (still firing)" if status.firing else "")
    return f"{status.state.value.replace('_', ' ')}: {status.message}"
