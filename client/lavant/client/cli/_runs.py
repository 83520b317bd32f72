"""`lavant runs`: which runs there are."""

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lavant.client import AsyncClient, Run, RunState
from lavant.client.cli import _session
from lavant.client.cli._lines import Header, print_header, print_json
from lavant.client.cli._options import ApiKey, Kinds, Labels, Names, Since, States, Target
from lavant.client.cli._selection import Selection
from lavant.client.cli._text import age, label_text, one_line

STYLES = {
    RunState.QUEUED: "dim",
    RunState.RUNNING: "cyan",
    RunState.INPUT_REQUIRED: "magenta",
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.TIMED_OUT: "red",
    RunState.CANCELLED: "yellow",
    RunState.ABANDONED: "yellow",
}
_LARGEST_PAGE = 1_000
_COLUMNS = ("id", "name", "state", "labels", "created", "events")
_FRAME_LINES = 3  # of a terminal that a live table leaves: its header, and room for the cursor


def runs(
    state: States = None,
    kind: Kinds = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    header: Header = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """List runs, the newest first.

    Into a pipe go lines of tab-separated columns: id, name, state, labels, time of creation, number of
    events. There --watch gives every run as it stands, and a line for each change; --limit does not hold.
    """
    selection = Selection.of(state, kind, name, label, since)

    async def work(client: AsyncClient) -> None:
        in_terminal = sys.stdout.isatty() and not json
        print_header(_COLUMNS, header and not json and not in_terminal)
        if watch and in_terminal:
            await _watch_table(client, selection, limit)
        elif watch:
            await _watch_lines(client, selection, json)
        elif in_terminal:
            _print_table([run async for run in _newest(client, selection, limit)])
        else:
            async for run in _newest(client, selection, limit):
                _print_line(run, json)

    _session.run(work, target, api_key)


async def _newest(client: AsyncClient, selection: Selection, limit: int) -> AsyncIterator[Run]:
    left = limit
    async for run in selection.list(client, page_size=min(limit, _LARGEST_PAGE)):
        yield run
        left -= 1
        if left == 0:
            return


def _print_line(run: Run, json: bool) -> None:
    if json:
        print_json(run)
        return
    created = run.created.isoformat(timespec="milliseconds") if run.created else ""
    labels = label_text(run.labels)
    columns = (run.id, one_line(run.name), run.state.value, labels, created, str(run.last_sequence))
    print("\t".join(columns), flush=True)


async def _watch_lines(client: AsyncClient, selection: Selection, json: bool) -> None:
    await anext(_newest(client, selection, 1), None)  # fails early where there is no server
    async for run in selection.watch(client):
        if selection.holds(run):
            _print_line(run, json)


async def _watch_table(client: AsyncClient, selection: Selection, limit: int) -> None:
    # Room for the ^C that a terminal echoes behind the table: on a line of its own it would shift what follows.
    console = Console(width=Console().width - 2)
    room = max(1, console.height - _FRAME_LINES)
    shown = {run.id: run async for run in _newest(client, selection, min(limit or room, room))}
    with Live(get_renderable=lambda: _table([*shown.values()]), console=console, refresh_per_second=2):
        async for run in selection.watch(client):
            shown = _with(shown, run, selection, min(limit or room, room))


def _with(shown: dict[str, Run], run: Run, selection: Selection, limit: int) -> dict[str, Run]:
    """The newest runs, once one has changed."""
    changed = {**shown, run.id: run}
    if not selection.holds(run):
        del changed[run.id]
    return {run.id: run for run in sorted(changed.values(), key=_created, reverse=True)[:limit]}


def _created(run: Run) -> datetime:
    return run.created or datetime.min.replace(tzinfo=UTC)


def _print_table(found: list[Run]) -> None:
    if found:
        Console().print(_table(found))
    else:
        typer.echo("no runs match", err=True)


def _table(found: list[Run]) -> Table:
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("RUN", no_wrap=True)
    table.add_column("NAME")
    table.add_column("STATE", no_wrap=True)
    table.add_column("LABELS")
    table.add_column("AGE", no_wrap=True, justify="right")
    table.add_column("EVENTS", no_wrap=True, justify="right")
    for run in found:
        table.add_row(
            run.id,
            _shrinking(one_line(run.name)),
            Text(run.state.value, style=STYLES.get(run.state, "")),
            _shrinking(label_text(run.labels)),
            age(run.created, now),
            str(run.last_sequence),
        )
    return table


def _shrinking(text: str) -> Text:
    """Text on one line in a column that gives way to the others."""
    return Text(text, no_wrap=True, overflow="ellipsis")
