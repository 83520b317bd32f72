"""`lavant cancel`: asks a run to stop."""

from typing import Annotated

import typer

from lavant.client import AsyncClient
from lavant.client.cli import _session
from lavant.client.cli._options import ApiKey, RunId, Target


def cancel(
    run: RunId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for people.", show_default=False)] = "",
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Ask a run's producer to stop.

    It may take its time; `lavant wait` tells when it has. A run that has ended stays as it is.
    """

    async def work(client: AsyncClient) -> None:
        asked = await client.runs.cancel(run, reason)
        print(f"{run} has ended already: {asked.state.value}" if asked.has_ended else f"{run} is asked to stop")

    _session.run(work, target, api_key)
