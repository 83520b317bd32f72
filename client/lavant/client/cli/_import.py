"""`lavant import`: creates the runs of an export on a server."""

import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lavant.client import AsyncClient, InvalidField, LavantError, ProducerGap, RunExists, RunNotFound, RunSealed
from lavant.client._requests import created_again
from lavant.client.cli import _session
from lavant.client.cli._export_format import OWN_RUNS
from lavant.client.cli._export_reader import ExportedRun, read_export
from lavant.client.cli._failures import CommandError
from lavant.client.cli._options import ApiKey, Target
from lavant.client.cli._text import count
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import AppendEventsRequest, ProducerBatch
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import GetRunRequest

PRODUCER_ID = "import"
PRODUCER_EPOCH = 1
_EVENT_PATH = re.compile(r"batch\.events\[(\d+)\]")


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `lavant export` wrote; - is stdin.", show_default=False)
    ] = Path("-"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, store nothing.")] = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Create the runs of an export, with the same ids, events, times and order.

    Import again to continue after a failure: nothing is stored twice. A run that exists with other content
    is refused, and a damaged one before anything of it is stored. Times of creation and of recording
    become this server's; runs that had not ended stay open, and a producer timeout counts anew.
    """

    async def work(client: AsyncClient) -> None:
        name = "stdin" if str(file) == "-" else str(file)
        importer = Importer(client, dry_run=dry_run)
        with nullcontext(sys.stdin.buffer) if name == "stdin" else file.open("rb") as opened:
            try:
                for exported in read_export(opened, name):
                    await importer.take(exported)
            finally:
                typer.echo(f"lavant: {importer.summary()}", err=True)

    _session.run(work, target, api_key, _session.LONG_PATIENCE)


@dataclass(slots=True)
class Importer:
    """Stores exported runs, one after the other, and counts."""

    client: AsyncClient
    dry_run: bool
    runs: int = 0
    events: int = 0
    runs_found: int = 0

    async def take(self, exported: ExportedRun) -> None:
        """Store what the server lacks of a run. Raises CommandError for one with other content there."""
        if exported.run.run_id.startswith(OWN_RUNS):
            raise CommandError(
                f"{exported.place(0)}: run {exported.run.run_id} is a server's own, which none imports: leave it out"
            )
        try:
            found = await self._begin(exported.run)
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
        """Say what was done."""
        done = "checked" if self.dry_run else "imported"
        verb = "would be stored" if self.dry_run else "stored"
        text = f"{done} {count(self.runs, 'run')}, {count(self.events, 'event')} {verb}"
        return text + (f", {count(self.runs_found, 'run')} there already" if self.runs_found else "")

    async def _begin(self, run: Run) -> int:
        """Make sure that the run exists; tells how many events it has. Raises RunExists."""
        connection = self.client._connection
        if not self.dry_run:
            return (await connection.call(lambda lane: lane.runs.CreateRun, created_again(run))).run.last_sequence
        try:
            stored = (await connection.call(lambda lane: lane.runs.GetRun, GetRunRequest(run_id=run.run_id))).run
        except RunNotFound:
            return 0
        if created_again(stored) != created_again(run):
            raise RunExists(f"run {run.run_id} exists with other settings")
        return stored.last_sequence

    async def _check_same(self, exported: ExportedRun, found: int) -> None:
        if not found:
            return
        expected = exported.events()
        async for stored in self.client.runs.events(exported.run.run_id, page_size=1_000):
            event = next(expected, None)
            if event is None:
                return
            if _content(stored.proto) != _content(event):
                raise _other_content(exported, stored.sequence)

    async def _append(self, exported: ExportedRun, first: int, events: list[Event]) -> None:
        batch = ProducerBatch(
            run_id=exported.run.run_id,
            producer_id=PRODUCER_ID,
            producer_epoch=PRODUCER_EPOCH,
            first_producer_sequence=first,
            events=events,
        )
        connection = self.client._connection
        try:
            await connection.call(lambda lane: lane.events.AppendEvents, AppendEventsRequest(batch=batch))
        except InvalidField as error:
            raise _refused(exported, first, error) from None


def _content(event: Event) -> bytes:
    bare = Event()
    bare.CopyFrom(event)
    bare.ClearField("sequence")
    bare.ClearField("record_time")
    return bare.SerializeToString(deterministic=True)


def _other_content(exported: ExportedRun, sequence: int = 0) -> CommandError:
    what = f"event {sequence} differs" if sequence else "it has other settings or another producer"
    return CommandError(
        f"{exported.place(sequence)}: run {exported.run.run_id} exists with other content, {what}: "
        "delete it there, or import into another server"
    )


def _refused(exported: ExportedRun, first: int, error: LavantError) -> CommandError:
    place = next((found for violation in error.violations if (found := _EVENT_PATH.match(violation.path))), None)
    sequence = first + int(place[1]) if place else first
    return CommandError(f"{exported.place(sequence)}: the server refused the event: {error}")
