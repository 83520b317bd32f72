"""`lavant rules`: which finished runs are judged."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavant.client import AlertState, AlertStatus, AsyncClient, Rule, _json
from lavant.client._rules import Again
from lavant.client.cli import _session
from lavant.client.cli._alert_syntax import EXAMPLES, alert_text
from lavant.client.cli._lines import Header, print_header, print_json
from lavant.client.cli._options import ApiKey, RuleId, Since, Target, since_of
from lavant.client.cli._rules_create import create
from lavant.client.cli._text import age, one_line

Json = Annotated[bool, typer.Option("--json", help="JSON: one object a line.")]

rules = typer.Typer(name="rules", help="Say which finished runs are judged.", no_args_is_help=True)
rules.command(
    epilog="Examples:\n\nlavant rules create quality --rate 0.1 --evaluator correctness\n\n"
    "lavant rules create slow --name 'weather-*' --min-duration 30\n\n"
    + "\n\n".join(f"lavant rules create quality --alert '{alert}'" for alert in EXAMPLES)
)(create)


@rules.command("list", epilog="Example:\n\nlavant rules list")
def list_(json: Json = False, header: Header = False, target: Target = None, api_key: ApiKey = None) -> None:
    """List rules, the newest first.

    Into a pipe go lines of tab-separated columns: rule, enabled or paused, rate, runs seen, drawn, judged, failed.
    """

    async def work(client: AsyncClient) -> None:
        found = [rule async for rule in client.rules.list()]
        if json or not sys.stdout.isatty():
            print_header(("rule", "state", "rate", "seen", "drawn", "judged", "failed"), header and not json)
            for rule in found:
                if json:
                    print_json(rule)
                else:
                    print("\t".join(_columns(rule)))
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("RULE", "STATE", "RATE", "SEEN", "DRAWN", "JUDGED", "FAILED", "AGE"):
            table.add_column(column, no_wrap=True, justify="left" if column in ("RULE", "STATE") else "right")
        for rule in found:
            table.add_row(*map(Text, _columns(rule)), age(rule.created, datetime.now(UTC)))
        Console().print(table)

    _session.run(work, target, api_key)


@rules.command(epilog="Example:\n\nlavant rules show quality")
def show(rule: RuleId, json: Json = False, target: Target = None, api_key: ApiKey = None) -> None:
    """Show a rule: what it draws, who judges, and how far it is."""
    _told(lambda client: client.rules.get(rule), json, target, api_key)


@rules.command(epilog="Example:\n\nlavant rules pause quality")
def pause(rule: RuleId, target: Target = None, api_key: ApiKey = None) -> None:
    """Draw no more runs. Those that finish meanwhile are left to `lavant rules backfill`."""
    _told(lambda client: _enable(client, rule, enabled=False), False, target, api_key)


@rules.command(epilog="Example:\n\nlavant rules resume quality")
def resume(rule: RuleId, target: Target = None, api_key: ApiKey = None) -> None:
    """Draw runs again that finish from now on."""
    _told(lambda client: _enable(client, rule, enabled=True), False, target, api_key)


@rules.command(
    epilog="Examples:\n\nlavant rules backfill quality --since 7d\n\n"
    "lavant rules backfill quality --again errors --since 2h"
)
def backfill(
    rule: RuleId,
    since: Since = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Created before then, as with --since.")
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(
            "--again",
            metavar="WHICH",
            help="Evaluate again what the rule has scored: errors, version (without a score in the present version of "
            "the rule's evaluators), or all.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Look at runs that the rule has not seen, or with --again at those that it has scored; earlier scores stay.

    They are drawn behind those that finish meanwhile.
    """
    now = datetime.now(UTC)
    after, before = since_of(since, now), since_of(until, now, "--until")
    if again not in (None, *get_args(Again)):
        raise typer.BadParameter(f"--again must be of {', '.join(get_args(Again))}, not {again!r}")
    which = cast("Again | None", again)
    _told(
        lambda client: client.rules.backfill(rule, created_after=after, created_before=before, again=which),
        False,
        target,
        api_key,
    )


@rules.command(epilog="Example:\n\nlavant rules delete quality")
def delete(rule: RuleId, target: Target = None, api_key: ApiKey = None) -> None:
    """Delete a rule and what it has drawn. Its scores stay."""

    async def work(client: AsyncClient) -> None:
        await client.rules.delete(rule)
        print(one_line(f"{rule} is deleted"))

    _session.run(work, target, api_key)


def _told(ask: Callable[[AsyncClient], Awaitable[Rule]], json: bool, target: str | None, api_key: str | None) -> None:
    async def work(client: AsyncClient) -> None:
        rule = await ask(client)
        if json:
            print_json(rule)
        else:
            print(_summary(rule))

    _session.run(work, target, api_key)


async def _enable(client: AsyncClient, rule_id: str, *, enabled: bool) -> Rule:
    rule = await client.rules.get(rule_id)
    return await client.rules.update(rule.model_copy(update={"enabled": enabled}))


def _status(status: AlertStatus) -> str:
    """Write an alert's state; the message of one that cannot fire says so itself."""
    if status.state is AlertState.CANNOT_FIRE:
        return status.message + (" (still firing)" if status.firing else "")
    return f"{status.state.value.replace('_', ' ')}: {status.message}"


def _columns(rule: Rule) -> list[str]:
    progress = rule.progress
    counts = (progress.runs_seen, progress.runs_drawn, progress.runs_judged, progress.runs_failed)
    return [one_line(rule.id), "enabled" if rule.enabled else "paused", f"{rule.sample_rate:g}", *map(str, counts)]


def _summary(rule: Rule) -> str:
    """Write a rule, a line for each thing that there is to tell."""
    return "\n".join(
        [one_line(f"{rule.id} is {_columns(rule)[1]}"), *(f"  {what:10} {said}" for what, said in _facts(rule))]
    )


def _facts(rule: Rule) -> Iterator[tuple[str, str]]:
    progress, past = rule.progress, rule.backfill
    wanted = rule.filter.model_dump(mode="json", exclude_defaults=True)
    yield "draws", one_line(f"{rule.sample_rate:g} of {_json.encode(wanted) if wanted else 'all agents'}")
    if rule.evaluators:
        yield "judged by", one_line(", ".join(f"{one.name} {one.version}".strip() for one in rule.evaluators))
    statuses = {status.name: status for status in rule.alert_statuses}
    for alert in rule.alerts:
        yield "alert", one_line(alert_text(alert))
        if alert.name in statuses:
            yield "", one_line(_status(statuses[alert.name]))
    yield (
        "progress",
        f"{progress.runs_seen:,} runs seen, {progress.runs_drawn:,} drawn, "
        f"{progress.runs_judged:,} judged, {progress.runs_failed:,} failed",
    )
    if progress.samples_waiting or progress.samples_held:
        yield (
            "samples",
            f"{progress.samples_waiting:,} waiting, {progress.samples_delayed:,} of them for another attempt; "
            f"{progress.samples_held:,} held by workers",
        )
    if progress.last_error is not None:
        yield "last error", one_line(f"{progress.last_error.type}: {progress.last_error.message}")
    if past is not None:
        state = "done" if past.done else "under way"
        again = f" of {past.again} again" if past.again else ""
        yield "backfill", f"{state}{again}: {past.runs_seen:,} runs seen, {past.runs_drawn:,} drawn"
    yield "results", one_line(rule.evaluation_id)
