"""`lavant import`: the runs of an export, created on a server."""

import codecs
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from lavant.client import AsyncClient, InvalidField, ProducerGap, RunExists, RunNotFound, RunSealed
from lavant.client._publishing.requests import created_again
from lavant.client.cli.export import SYSTEM_RUNS, InvalidLine, read_line
from lavant.client.cli.output import count
from lavant.client.cli.session import CommandError, command
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import AppendEventsRequest, ProducerBatch
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import GetRunRequest

PRODUCER_ID = "import"
PRODUCER_EPOCH = 1
_EVENT_PATH = re.compile(r"batch\.events\[(\d+)\]")
_LONGEST_LINE = 16 << 20
_IN_MEMORY = 8 << 20
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 512 << 10


@command(timeout=60)
async def import_(
    client: AsyncClient,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Output of `lavant export`; - is stdin.")] = Path("-"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, store nothing.")] = False,
) -> None:
    """Import runs that `lavant export` wrote.

    Ids, events, event times and the order of runs are kept. After a failure, import again to continue: nothing is
    stored twice. A run that exists with other content is refused, as is a damaged one, before any of it is stored.
    Creation and record times are those of the import. Runs that had not ended stay open; their producer timeout starts
    with the import.
    """
    name = "stdin" if str(file) == "-" else str(file)
    importer = _Importer(client, dry_run=dry_run)
    with nullcontext(sys.stdin.buffer) if name == "stdin" else file.open("rb") as opened:
        try:
            for exported in _read_export(opened, name):
                await importer.store(exported)
        finally:
            typer.echo(f"lavant: {importer.summary()}", err=True)


class _ExportedRun:
    """A run and its events, in memory or, if they are many, in a temporary file."""

    def __init__(self, file_name: str, line: int, run: Run) -> None:
        self.run = run
        self.count = 0
        self._file_name = file_name
        self._line = line
        self._events = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by `close`

    def add(self, event: Event) -> None:
        """Add the next event. Raises InvalidLine for any other."""
        if event.sequence != self.count + 1:
            raise InvalidLine(f"has sequence {event.sequence}; {self.count + 1} comes next")
        if self.count == self.run.last_sequence:
            raise InvalidLine(f"is one event more than the run has: {self.count}")
        body = _content(event)
        self._events.write(len(body).to_bytes(4) + body)
        self.count += 1

    def check_complete(self) -> None:
        """Raise CommandError if events are missing."""
        if self.count < self.run.last_sequence:
            raise CommandError(
                f"{self.line(self.count)}: run {self.run.run_id} breaks off after {self.count} of "
                f"{self.run.last_sequence} events: export it again"
            )

    def events(self) -> Iterator[Event]:
        """Yield the events from the first on."""
        self._events.seek(0)
        while head := self._events.read(4):
            yield Event.FromString(self._events.read(int.from_bytes(head)))

    def batches(self, after: int) -> Iterator[tuple[int, list[Event]]]:
        """Yield the events after a sequence in batches that a server accepts, each with its first sequence."""
        batch: list[Event] = []
        size = 0
        for sequence, event in enumerate(self.events(), 1):
            if sequence <= after:
                continue
            length = event.ByteSize()
            if batch and (len(batch) == _BATCH_EVENTS or size + length > _BATCH_BYTES):
                yield sequence - len(batch), batch
                batch, size = [], 0
            batch.append(event)
            size += length
        if batch:
            yield self.count - len(batch) + 1, batch

    def line(self, sequence: int) -> str:
        """Return the file and line of an event; 0: of the run."""
        return f"{self._file_name}:{self._line + sequence}"

    def close(self) -> None:
        """Delete the temporary file."""
        self._events.close()


def _read_export(file: IO[bytes], file_name: str) -> Iterator[_ExportedRun]:
    """Yield the runs of an export, each once all of it is read. Raises CommandError with the line that is invalid."""
    current: _ExportedRun | None = None
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        try:
            if len(line) == _LONGEST_LINE:
                raise InvalidLine(f"is longer than {_LONGEST_LINE} bytes")
            record = read_line(line)
            if isinstance(record, Event):
                if current is None:
                    raise InvalidLine("is an event without a run before it")
                current.add(record)
                continue
        except InvalidLine as error:
            raise CommandError(f"{file_name}:{number}: the line {error}") from None
        if current is not None:
            yield from _completed(current)
        current = _ExportedRun(file_name, number, record)
    if current is not None:
        yield from _completed(current)


def _completed(exported: _ExportedRun) -> Iterator[_ExportedRun]:
    with closing(exported):
        exported.check_complete()
        yield exported


@dataclass(slots=True)
class _Importer:
    """Stores exported runs one after the other, and counts."""

    client: AsyncClient
    dry_run: bool
    runs: int = 0
    events: int = 0
    runs_found: int = 0

    async def store(self, exported: _ExportedRun) -> None:
        """Store what the server lacks of a run. Raises CommandError if the run exists with other content."""
        if exported.run.run_id.startswith(SYSTEM_RUNS):
            raise CommandError(
                f"{exported.line(0)}: run {exported.run.run_id} is a system run, which no server imports: leave it out"
            )
        try:
            found = await self._create(exported.run)
            await self._check_same(exported, found)
            for first, batch in exported.batches(after=found):
                if not self.dry_run:
                    await self._append(exported, first, batch)
                self.events += len(batch)
        except (RunExists, RunSealed, ProducerGap):
            raise _other_content(exported) from None
        self.runs += 1
        self.runs_found += found > 0 and found >= exported.count

    def summary(self) -> str:
        """Describe what was done."""
        done = "checked" if self.dry_run else "imported"
        verb = "would be stored" if self.dry_run else "stored"
        text = f"{done} {count(self.runs, 'run')}, {count(self.events, 'event')} {verb}"
        return text + (f", {count(self.runs_found, 'run')} existed already" if self.runs_found else "")

    async def _create(self, run: Run) -> int:
        """Create the run unless it exists; return how many events it has. Raises RunExists."""
        connection = self.client._connection
        if not self.dry_run:
            return (await connection.call(lambda stubs: stubs.runs.CreateRun, created_again(run))).run.last_sequence
        try:
            stored = (await connection.call(lambda stubs: stubs.runs.GetRun, GetRunRequest(run_id=run.run_id))).run
        except RunNotFound:
            return 0
        if created_again(stored) != created_again(run):
            raise RunExists(f"run {run.run_id} exists with other settings")
        return stored.last_sequence

    async def _check_same(self, exported: _ExportedRun, found: int) -> None:
        if not found:
            return
        expected = exported.events()
        async for stored in self.client.runs.events(exported.run.run_id, page_size=1_000):
            event = next(expected, None)
            if event is None:
                return
            if _content(stored.proto) != _content(event):
                raise _other_content(exported, stored.sequence)

    async def _append(self, exported: _ExportedRun, first: int, events: list[Event]) -> None:
        batch = ProducerBatch(
            run_id=exported.run.run_id,
            producer_id=PRODUCER_ID,
            producer_epoch=PRODUCER_EPOCH,
            first_producer_sequence=first,
            events=events,
        )
        connection = self.client._connection
        try:
            await connection.call(lambda stubs: stubs.events.AppendEvents, AppendEventsRequest(batch=batch))
        except InvalidField as error:
            paths = (_EVENT_PATH.match(violation.path) for violation in error.violations)
            sequence = first + next((int(path[1]) for path in paths if path), 0)
            raise CommandError(f"{exported.line(sequence)}: the server refused the event: {error}") from None


def _content(event: Event) -> bytes:
    """Return an event's bytes without the fields that each server sets itself."""
    content = Event()
    content.CopyFrom(event)
    content.ClearField("sequence")
    content.ClearField("record_time")
    return content.SerializeToString(deterministic=True)


def _other_content(exported: _ExportedRun, sequence: int = 0) -> CommandError:
    what = f"event {sequence} differs" if sequence else "it has other settings or another producer"
    return CommandError(
        f"{exported.line(sequence)}: run {exported.run.run_id} exists with other content, {what}: "
        "delete it there, or import into another server"
    )
