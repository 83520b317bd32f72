"""`lavant wait`: how a run ended, as an exit status."""

from typing import Annotated

import typer

from lavant.client import AsyncClient, Run, WaitTimeout
from lavant.client.cli import _session
from lavant.client.cli._exit_status import status_of
from lavant.client.cli._options import ApiKey, RunId, Target
from lavant.client.cli._text import one_line

NOT_ENDED = 124  # as timeout(1) has it


def wait(
    run: RunId,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Wait no longer.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the exit status tells.")] = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Wait until a run has ended, and tell how.

    Exit status: 0 succeeded, 10 failed, 11 cancelled, 12 timed out by itself, 13 abandoned; 124 not ended
    within --timeout; 1 lavant could not tell, 2 wrong usage.
    """

    async def work(client: AsyncClient) -> None:
        try:
            ended = await client.runs.wait(run, timeout=timeout)
        except WaitTimeout as error:
            if not quiet:
                typer.echo(f"lavant: {error}: it goes on, wait again or longer", err=True)
            raise typer.Exit(NOT_ENDED) from None
        if not quiet:
            print(_outcome(ended))
        raise typer.Exit(status_of(ended.state))

    _session.run(work, target, api_key)


def _outcome(run: Run) -> str:
    error = run.result.error if run.result else None
    if error is None:
        return f"{run.id} {run.state.value}"
    kind = f"{error.type}: " if error.type else ""
    return one_line(f"{run.id} {run.state.value}: {kind}{error.message}")
