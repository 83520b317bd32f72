"""`lavant tail`: what a run does, while it does it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Self, cast

import typer

from lavant.client import AsyncClient, AsyncRunStream, LavantError, ResumeTokenInvalid, Run, RunNotFound, RunResult
from lavant.client._reading.plan import Deltas, Start, split_token
from lavant.client._wire.arguments import event_types
from lavant.client.cli.options import names_of
from lavant.client.cli.session import CommandError, cancelled_by_sigterm, command, status_of
from lavant.client.cli.tail.output import Output, output_to

_DELTA_MODES = ("all", "merged", "none")
_ACTIVE = ("running", "input_required")
_SHORTEST_TOKEN = 20


@command()
async def tail(
    client: AsyncClient,
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="ID of the run.", show_default="the newest run that has not ended"),
    ] = None,
    begin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="POSITION",
            help="First event to show: beginning, now, a sequence, or a resume token.",
        ),
    ] = "beginning",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for the run to end, or stop after what is recorded.")
    ] = True,
    types: Annotated[
        str, typer.Option(metavar="TYPE,...", help="Only events of these types, such as text_delta,error_reported.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the events, one JSON object per line.")] = False,
    deltas: Annotated[
        str, typer.Option(metavar="MODE", help="all; merged: fewer of them after a delay; none: only whole messages.")
    ] = "all",
    wait_for_run: Annotated[bool, typer.Option("--wait-for-run", help="Wait until the run exists.")] = False,
) -> None:
    """Watch a run: text, tools, steps, progress and outcome.

    Ctrl-C stops watching, not the run, and prints how to resume.

    Exit status: 0 succeeded (or not ended, with --no-follow), 10 failed, 11 cancelled, 12 timed out, 13 abandoned;
    1 error of lavant, 2 wrong usage, 130 Ctrl-C.
    """
    position = _Position.parse(begin)
    names = names_of(types)
    try:
        event_types(names)
    except ValueError as error:
        raise typer.BadParameter(f"--{error}") from None
    if deltas not in _DELTA_MODES:
        raise typer.BadParameter(f"--deltas must be one of {', '.join(_DELTA_MODES)}, not {deltas!r}")
    sees_deltas = deltas != "none" and (not names or "text_delta" in names)
    with _printing_how_to_resume() as reading:
        async with output_to(sys.stdout, json=json, joins_midway=position.joins_midway and sees_deltas) as output:
            found = await _find(client, run, output if wait_for_run else None)
            stream = reading.stream = client.runs.stream(
                found.id if found else run or "",
                resume_token=position.resume_token,
                start=position.start,
                stop="run_finished" if follow else "head",
                types=names,
                deltas=cast("Deltas", deltas),
                wait_for_run=wait_for_run,
            )
            async with stream:
                result = await _read(client, stream, found, run or "", position.first, output)
    if result is None:
        reading.print_how_to_resume()
    raise typer.Exit(0 if result is None else status_of(result.state))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """A position in a run's log: by name, by resume token, or by the first sequence to show."""

    start: Start = "beginning"
    resume_token: str | None = None
    first: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the value of --from. Raises a usage error."""
        if text == "beginning":
            return cls()
        if text == "now":
            return cls(start="now")
        if text.isascii() and text.isdecimal() and len(text) < _SHORTEST_TOKEN:
            return cls(first=int(text))
        try:
            split_token(text)
        except ResumeTokenInvalid as error:
            raise typer.BadParameter(f"--from: {error}") from None
        if len(text) < _SHORTEST_TOKEN:
            raise typer.BadParameter(f"--from must be beginning, now, a sequence or a resume token, not {text!r}")
        return cls(resume_token=text)

    @property
    def joins_midway(self) -> bool:
        """Whether events before it are not read."""
        return self.start == "now" or self.resume_token is not None


@dataclass(slots=True)
class _Reading:
    """Progress of reading a stream."""

    stream: AsyncRunStream | None = None

    def print_how_to_resume(self) -> None:
        """Print the resume token, if there is one."""
        if self.stream is not None and self.stream.resume_token:
            typer.echo(f"lavant: resume with --from {self.stream.resume_token}", err=True)


@contextmanager
def _printing_how_to_resume() -> Iterator[_Reading]:
    """Print the resume token when reading is interrupted or fails."""
    reading = _Reading()
    with cancelled_by_sigterm():
        try:
            yield reading
        except (asyncio.CancelledError, LavantError):
            reading.print_how_to_resume()
            raise


async def _find(client: AsyncClient, run_id: str | None, waiting: Output | None) -> Run | None:
    """Return the run to watch, or None for a named one that does not exist yet; `waiting` allows to wait for one."""
    if run_id is not None:
        try:
            return await client.runs.get(run_id)
        except RunNotFound:
            if waiting is None:
                raise
            waiting.wait()
            return None
    newest = await anext(client.runs.list(states=_ACTIVE, page_size=1), None)
    if newest is None and waiting is not None:
        waiting.wait()
        changes = client.runs.watch(states=_ACTIVE)
        newest = await anext((change.run async for change in changes if change.run is not None), None)
    if newest is None:
        raise CommandError("no run is active: name one, or wait for one with --wait-for-run; `lavant runs` lists all")
    return newest


async def _read(
    client: AsyncClient, stream: AsyncRunStream, found: Run | None, run_id: str, first: int, output: Output
) -> RunResult | None:
    """Show a stream to its end; return the run's result, or None if the run has not ended.

    `run_id` is of a run that is not `found` yet.
    """
    if found is not None:
        run_id = found.id
        output.open(found)
    result = None
    async for event in stream:
        if found is None:
            found = stream.run or await client.runs.get(run_id)
            output.open(found)
        if event.type == "run_finished":
            result = RunResult.from_proto(event.proto.run_finished, run_id=run_id)
        if event.sequence < first:
            output.skip(event)
        else:
            output.show(event)
    # The event types asked for may lack run_finished.
    now = None if result else await client.runs.get(run_id)
    if now is not None:
        result = now.result
    output.end(result, now.last_sequence if now else stream.last_sequence)
    return result
