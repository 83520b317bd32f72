"""`lavant export`: writes runs and their events as JSON lines."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from lavant.client import AsyncClient, RunNotFound
from lavant.client.cli import _session
from lavant.client.cli._export_format import OWN_RUNS, event_line, run_line
from lavant.client.cli._failures import CommandError
from lavant.client.cli._options import ApiKey, Kinds, Labels, Names, Since, States, Target
from lavant.client.cli._selection import Selection
from lavant.client.cli._text import count
from lavant.v1.run_service_pb2 import GetRunRequest

_PAGE = 1_000


def export(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="The runs' ids.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; - is stdout. A file is replaced once all is written."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs.")] = False,
    state: States = None,
    kind: Kinds = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Write runs as JSON lines, which `lavant import` reads.

    Runs are named, or selected by --all or the filters, the oldest first. Of a run that goes on, the
    events recorded so far are written. A server's own runs, such as the results of rules, are written
    only if they are named: no server imports them.
    """
    selection = Selection.of(state, kind, name, label, since)
    if bool(run) == (every or not selection.is_everything):
        raise typer.BadParameter("name runs, or select them by --all or filters such as --since 7d")

    async def work(client: AsyncClient) -> None:
        with _opened(output) as file:
            runs, events = 0, 0
            async for run_id in _ids(client, selection, run):
                written = await _write_run(client, run_id, file, may_be_gone=not run)
                runs += written is not None
                events += written or 0
        if output is not None:
            typer.echo(f"lavant: exported {count(runs, 'run')}, {count(events, 'event')}", err=True)

    _session.run(work, target, api_key, _session.LONG_PATIENCE)


async def _ids(client: AsyncClient, selection: Selection, named: list[str] | None) -> AsyncIterator[str]:
    """The runs to write: an import creates them in the same order, so the oldest come first."""
    for run_id in named or reversed([run.id async for run in selection.list(client, _PAGE)]):
        if named or not run_id.startswith(OWN_RUNS):
            yield run_id


async def _write_run(client: AsyncClient, run_id: str, file: IO[str], *, may_be_gone: bool) -> int | None:
    """Write a run as it stands; tells the number of its events, or None if it is gone."""
    connection = client._connection
    try:
        response = await connection.call(lambda lane: lane.runs.GetRun, GetRunRequest(run_id=run_id))
    except RunNotFound:
        if may_be_gone:
            return None
        raise
    run = response.run
    file.write(run_line(run) + "\n")
    if run.last_sequence == 0:
        return 0
    async for event in client.runs.events(run_id, page_size=_PAGE):
        file.write(event_line(event.proto) + "\n")
        if event.sequence == run.last_sequence:
            return event.sequence
    raise CommandError(f"run {run_id} lacks events that it should have: export it again")


def _opened(output: Path | None) -> AbstractContextManager[IO[str]]:
    if output is None or str(output) == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        return nullcontext(sys.stdout)
    if output.exists() and not output.is_file():
        return output.open("w", encoding="utf-8")
    return _replaced(output)


@contextmanager
def _replaced(path: Path) -> Any:
    """A file that takes the place of another only once it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
