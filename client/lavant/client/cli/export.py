"""`lavant export`: runs and their events as JSON lines.

A run's line is `{"lavant": "export/1", "run": {...}}`; then follow its events, one per line. Both are protobuf's JSON
mapping with the contract's field names. What that mapping cannot express, such as fields of a newer server, is kept
in `@serialized`: the message's bytes in base64, which then count alone.
"""

import base64
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import typer
from google.protobuf.json_format import Error, MessageToDict, ParseDict
from google.protobuf.message import DecodeError, Message

from lavant.client import AsyncClient, RunNotFound
from lavant.client.cli.options import Kinds, Labels, Names, Selection, Since, States
from lavant.client.cli.output import count
from lavant.client.cli.session import CommandError, command
from lavant.client.cli.untrusted import neutral_json
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import GetRunRequest

VERSION = "export/1"
SYSTEM_RUNS = "lavant."  # prefix of the ids of system runs, which no client can create
_PAGE = 1_000
_VERSION_KEY = "lavant"
_SERIALIZED = "@serialized"
_Message = TypeVar("_Message", bound=Message)


@command(timeout=60)
async def export(
    client: AsyncClient,
    run: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="IDs of the runs.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            *("--output", "-o"),
            metavar="FILE",
            help="File to write, replaced once all is written; - is stdout.",
            show_default="-",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Export all runs.")] = False,
    state: States = None,
    kind: Kinds = None,
    name: Names = None,
    label: Labels = None,
    since: Since = None,
) -> None:
    """Export runs as JSON lines, which `lavant import` reads.

    Runs are named, or selected by --all or the filters; the oldest come first. A run that has not ended is exported
    as far as it is recorded. System runs, such as the results of rules, are exported only by name, as no server
    imports them.
    """
    selection = Selection.parse(state, kind, name, label, since)
    if bool(run) == (every or not selection.matches_all):
        raise typer.BadParameter("name runs, or select them by --all or filters such as --since 7d")
    with _opened(output) as file:
        runs, events = 0, 0
        async for run_id in _ids(client, selection, run):
            written = await _write_run(client, run_id, file, may_be_gone=not run)
            runs += written is not None
            events += written or 0
    if output is not None:
        typer.echo(f"lavant: exported {count(runs, 'run')}, {count(events, 'event')}", err=True)


async def _ids(client: AsyncClient, selection: Selection, named: list[str] | None) -> AsyncIterator[str]:
    """Yield the runs to export; an import creates them in the same order, so the oldest come first."""
    for run_id in named or reversed([run.id async for run in selection.list(client)]):
        yield run_id


async def _write_run(client: AsyncClient, run_id: str, file: IO[str], *, may_be_gone: bool) -> int | None:
    """Write a run's current state; return the number of its events, or None if the run is gone."""
    connection = client._connection
    try:
        response = await connection.call(lambda stubs: stubs.runs.GetRun, GetRunRequest(run_id=run_id))
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
    raise CommandError(f"run {run_id} has fewer events than its head {run.last_sequence}: export it again")


def _opened(output: Path | None) -> AbstractContextManager[IO[str]]:
    if output is None or str(output) == "-":
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        return nullcontext(sys.stdout)
    if output.exists() and not output.is_file():  # a device or a pipe cannot be replaced
        return output.open("w", encoding="utf-8")
    return _replaced(output)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """Open a file that replaces another only once it is complete."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class InvalidLine(ValueError):
    """A line that no export contains; the text says why."""


def run_line(run: Run) -> str:
    """Return the line that a run's events follow."""
    return _dump({_VERSION_KEY: VERSION, "run": _encode(run)})


def event_line(event: Event) -> str:
    """Return an event's line."""
    return _dump(_encode(event))


def read_line(line: bytes) -> Run | Event:
    """Parse a line. Raises InvalidLine."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidLine(f"is not JSON: {error}") from None
    except RecursionError:
        raise InvalidLine("is nested too deeply; no export is") from None
    if not isinstance(record, dict):
        raise InvalidLine("is not a JSON object")
    if _VERSION_KEY not in record:
        return _decode(record, Event())
    if record[_VERSION_KEY] != VERSION:
        raise InvalidLine(f"has format {record[_VERSION_KEY]!r}, not {VERSION}; use a newer lavant")
    return _decode(record.get("run"), Run())


def _dump(record: dict[str, Any]) -> str:
    return neutral_json(json.dumps(record, ensure_ascii=False, separators=(",", ":")))


def _encode(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {}
    try:
        record = MessageToDict(message, preserving_proto_field_name=True)
        is_complete = ParseDict(record, type(message)()) == message
    except (Error, ValueError):
        is_complete = False
    if not is_complete:
        record[_SERIALIZED] = base64.b64encode(message.SerializeToString()).decode()
    return record


def _decode(record: Any, message: _Message) -> _Message:
    if not isinstance(record, dict):
        raise InvalidLine("has no run")
    try:
        if _SERIALIZED in record:
            message.ParseFromString(base64.b64decode(record[_SERIALIZED], validate=True))
        else:
            ParseDict(record, message)
    except (Error, DecodeError, ValueError, TypeError) as error:
        raise InvalidLine(f"is no {type(message).__name__}: {error}") from None
    return message
