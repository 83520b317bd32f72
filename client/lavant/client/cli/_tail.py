"""`lavant tail`: what a run does, while it does it."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, cast

import typer

from lavant.client import AsyncClient, AsyncRunStream, LavantError, Run, RunNotFound, RunResult
from lavant.client._arguments import event_types
from lavant.client._plan import Deltas
from lavant.client.cli import _session
from lavant.client.cli._exit_status import status_of
from lavant.client.cli._failures import CommandError
from lavant.client.cli._options import ApiKey, Target
from lavant.client.cli._sigterm import cancelled_by_sigterm
from lavant.client.cli._tail_output import Output, output_to
from lavant.client.cli._tail_position import Position

_DELTA_MODES = ("all", "merged", "none")
_AT_WORK = ("running", "input_required")


def tail(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="The run's id; the newest one at work.", show_default=False)
    ] = None,
    begin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="POSITION",
            help="beginning, now, the sequence of the first event to show, or a resume token.",
        ),
    ] = "beginning",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until the run ends, or stop at what is recorded.")
    ] = True,
    types: Annotated[
        str, typer.Option(metavar="TYPE,...", help="Only events of these types: text_delta,error_reported ...")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line: the events as they are.")] = False,
    deltas: Annotated[
        str, typer.Option(metavar="MODE", help="all; merged: fewer where this is behind; none: whole messages only.")
    ] = "all",
    wait_for_run: Annotated[bool, typer.Option("--wait-for-run", help="Wait for the run to be created.")] = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Watch a run: text as it is said, tools, steps, progress, errors, and how it ends.

    Ctrl-C ends the watching, never the run, and says how to resume. Exit status: 0 succeeded (or still at
    work, with --no-follow), 10 failed, 11 cancelled, 12 timed out by itself, 13 abandoned; 1 lavant could
    not tell, 2 wrong usage, 130 Ctrl-C.
    """
    position = Position.of(begin)
    names = [name for name in types.replace(" ", "").split(",") if name]
    try:
        event_types(names)
    except ValueError as error:
        raise typer.BadParameter(f"--{error}") from None
    if deltas not in _DELTA_MODES:
        raise typer.BadParameter(f"--deltas must be one of {', '.join(_DELTA_MODES)}, not {deltas!r}")
    sees_deltas = deltas != "none" and (not names or "text_delta" in names)

    async def work(client: AsyncClient) -> None:
        with _telling_how_to_resume() as reading:
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
            reading.tell()
        raise typer.Exit(0 if result is None else status_of(result.state))

    _session.run(work, target, api_key)


@dataclass(slots=True)
class _Reading:
    """How far a tail has come, for who interrupts it."""

    stream: AsyncRunStream | None = None

    def tell(self) -> None:
        """Say how to go on, if there is a way."""
        if self.stream is not None and self.stream.resume_token:
            typer.echo(f"lavant: resume with --from {self.stream.resume_token}", err=True)


async def _find(client: AsyncClient, run_id: str | None, waiting: Output | None) -> Run | None:
    """Return the run; None for one that is not there yet, if that may be waited for: `waiting` is told."""
    if run_id is not None:
        try:
            return await client.runs.get(run_id)
        except RunNotFound:
            if waiting is None:
                raise
            waiting.wait()
            return None
    newest = await anext(client.runs.list(states=_AT_WORK, page_size=1), None)
    if newest is None and waiting is not None:
        waiting.wait()
        newest = await anext(client.runs.watch(states=_AT_WORK), None)
    if newest is None:
        raise CommandError("no run is at work: name one, or wait for one with --wait-for-run; `lavant runs` lists all")
    return newest


async def _read(
    client: AsyncClient, stream: AsyncRunStream, found: Run | None, run_id: str, first: int, output: Output
) -> RunResult | None:
    """Show a stream to its end; return the run's result, None if the run goes on.

    `run_id` is of a run that is waited for, and not `found` yet.
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
            result = RunResult.from_proto(run_id, event.proto.run_finished)
        if event.sequence < first:
            output.skip(event)
        else:
            output.show(event)
    # Its end may not be among the types that were asked for.
    now = None if result else await client.runs.get(run_id)
    if now is not None:
        result = now.result
    output.end(result, now.last_sequence if now else stream.last_sequence)
    return result


@contextmanager
def _telling_how_to_resume() -> Iterator[_Reading]:
    """Say where to go on when the reading is interrupted, or cannot go on."""
    reading = _Reading()
    with cancelled_by_sigterm():
        try:
            yield reading
        except (asyncio.CancelledError, LavantError):
            reading.tell()
            raise
