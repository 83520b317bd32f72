"""Reads an export run by run; each is read and checked to its end before it is given."""

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import IO

from lavant.client.cli._export_format import DamagedLine, read_line
from lavant.client.cli._failures import CommandError
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run

_LONGEST_LINE = 16 << 20
_IN_MEMORY = 8 << 20
_BATCH_EVENTS = 1_000
_BATCH_BYTES = 512 << 10


class ExportedRun:
    """A run and its events, which are kept in memory or, when they are many, in a temporary file."""

    def __init__(self, file_name: str, line: int, run: Run) -> None:
        self.run = run
        self.count = 0
        self._file_name = file_name
        self._line = line
        self._events = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by `close`

    def add(self, event: Event) -> None:
        """Take the next event. Raises DamagedLine if it is another one."""
        if event.sequence != self.count + 1:
            raise DamagedLine(f"has sequence {event.sequence}; {self.count + 1} comes next")
        if self.count == self.run.last_sequence:
            raise DamagedLine(f"is one event more than the run has: {self.count}")
        # The server sets both anew.
        event.ClearField("sequence")
        event.ClearField("record_time")
        body = event.SerializeToString()
        self._events.write(len(body).to_bytes(4) + body)
        self.count += 1

    def check_whole(self) -> None:
        """Raise CommandError if events are missing."""
        if self.count < self.run.last_sequence:
            raise CommandError(
                f"{self.place(self.count)}: run {self.run.run_id} breaks off after {self.count} of "
                f"{self.run.last_sequence} events: export it again"
            )

    def events(self) -> Iterator[Event]:
        """Give the events from the beginning."""
        self._events.seek(0)
        while head := self._events.read(4):
            yield Event.FromString(self._events.read(int.from_bytes(head)))

    def batches(self, after: int) -> Iterator[tuple[int, list[Event]]]:
        """Give the events behind a sequence in batches that a server takes, each with its first sequence."""
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

    def place(self, sequence: int) -> str:
        """Tell where an event is written: file and line."""
        return f"{self._file_name}:{self._line + sequence}"

    def close(self) -> None:
        """Free what it holds."""
        self._events.close()


def read_export(file: IO[bytes], file_name: str) -> Iterator[ExportedRun]:
    """Give the runs of an export, each once it is read. Raises CommandError, naming the line that is damaged."""
    current: ExportedRun | None = None
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        try:
            record = _read(line)
            if isinstance(record, Event):
                if current is None:
                    raise DamagedLine("is an event without a run before it")
                current.add(record)
                continue
        except DamagedLine as error:
            raise CommandError(f"{file_name}:{number}: the line {error}") from None
        if current is not None:
            yield from _finished(current)
        current = ExportedRun(file_name, number, record)
    if current is not None:
        yield from _finished(current)


def _finished(exported: ExportedRun) -> Iterator[ExportedRun]:
    with closing(exported):
        exported.check_whole()
        yield exported


def _read(line: bytes) -> Run | Event:
    if len(line) == _LONGEST_LINE:
        raise DamagedLine(f"is longer than {_LONGEST_LINE} bytes")
    return read_line(line)
