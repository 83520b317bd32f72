"""`lavant runs`, `lavant wait` and `lavant cancel`."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from lavant.client import AsyncClient, Run, WaitTimeout
from lavant.client.cli.options import (
    Header,
    Json,
    Kinds,
    Labels,
    Limit,
    Names,
    RunId,
    Selection,
    Since,
    States,
    SystemRuns,
)
from lavant.client.cli.output import Listing, age, label_text, state_text
from lavant.client.cli.session import command, status_of
from lavant.client.cli.statuses import NOT_ENDED
from lavant.client.cli.untrusted import one_line

_FRAME_LINES = 3  # of a terminal that a live table leaves free: its header, and the line of the cursor


@command()
async def runs(
    client: AsyncClient,
    state: States = None,
    kind: Kinds = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
    system: SystemRuns = False,
    limit: Limit = 50,
    json: Json = False,
    header: Header = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep running, and show changes.")] = False,
) -> None:
    """List runs, the newest first.

    Output that is not a terminal gets tab-separated columns: id, name, state, labels, creation time, number of
    events. There, --watch prints the current state of every run and then one line per change, and ignores --limit.
    """
    selection = Selection.parse(state, kind, name, label, since, system_runs=system)
    if not watch:
        await _RUNS.print(selection.list(client, limit), json=json, header=header)
    elif sys.stdout.isatty() and not json:
        await _watch_table(client, selection, limit)
    else:
        _RUNS.print_header(json=json, header=header)
        await anext(selection.list(client, 1), None)  # fails early without a server, which a watch would wait for
        async for change in selection.watch(client):
            if change.run is not None:
                _RUNS.print_line(change.run, json=json)


async def _watch_table(client: AsyncClient, selection: Selection, limit: int) -> None:
    # Two columns for the ^C that a terminal echoes after the table: on a line of its own it would shift the table.
    console = Console(width=Console().width - 2)
    limit = min(limit or console.height, max(1, console.height - _FRAME_LINES))
    shown = {run.id: run async for run in selection.list(client, limit)}
    with Live(get_renderable=lambda: _RUNS.table([*shown.values()]), console=console, refresh_per_second=2):
        async for change in selection.watch(client):
            shown.pop(change.run_id, None)
            if change.run is not None:
                shown[change.run_id] = change.run
            shown = {run.id: run for run in sorted(shown.values(), key=_created, reverse=True)[:limit]}


def _created(run: Run) -> datetime:
    return run.created or datetime.min.replace(tzinfo=UTC)


def _row(run: Run) -> list[str]:
    created = run.created.isoformat(timespec="milliseconds") if run.created else ""
    return [run.id, run.name, run.state.value, label_text(run.labels), created, str(run.last_sequence)]


def _cells(run: Run) -> list[str | Text]:
    shown_age = age(run.created, datetime.now(UTC))
    return [run.id, run.name, state_text(run.state), label_text(run.labels), shown_age, str(run.last_sequence)]


_RUNS = Listing(
    columns=("id", "name", "state", "labels", "created", "events"),
    row=_row,
    headings=("RUN", "NAME", "STATE", "LABELS", "AGE", "EVENTS"),
    cells=_cells,
    numeric=("AGE", "EVENTS"),
    empty="no runs match",
)


@command()
async def wait(
    client: AsyncClient,
    run: RunId,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Maximum time to wait.", show_default="no limit")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; only set the exit status.")] = False,
) -> None:
    """Wait until a run has ended, and report its outcome.

    Exit status: 0 succeeded, 10 failed, 11 cancelled, 12 timed out, 13 abandoned, 124 not ended within --timeout;
    1 error of lavant, 2 wrong usage.
    """
    try:
        ended = await client.runs.wait(run, timeout=timeout)
    except WaitTimeout as error:
        if not quiet:
            typer.echo(f"lavant: {error}: the run continues; wait again, or longer", err=True)
        raise typer.Exit(NOT_ENDED) from None
    if not quiet:
        print(_outcome(ended))
    raise typer.Exit(status_of(ended.state))


def _outcome(run: Run) -> str:
    error = run.result.error if run.result else None
    if error is None:
        return f"{run.id} {run.state.value}"
    kind = f"{error.type}: " if error.type else ""
    return one_line(f"{run.id} {run.state.value}: {kind}{error.message}")


@command()
async def cancel(
    client: AsyncClient,
    run: RunId,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason to record with the request.", show_default=False)
    ] = "",
) -> None:
    """Request that a run's producer stops.

    The producer may take its time; `lavant wait` waits for the end. A run that has ended does not change.
    """
    run_after = await client.runs.cancel(run, reason)
    if run_after.has_ended:
        print(f"{run} has already ended: {run_after.state.value}")
    else:
        print(f"cancellation of {run} is requested")
