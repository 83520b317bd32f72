"""Where an evaluation is run: in an event loop of its own, which pydantic-evals needs, over another connection."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavant.client._async.client import AsyncClient
from lavant.client._evaluations import Evaluation
from lavant.client._sync.connection import Connection
from lavant.client._sync.runs import Runs

if TYPE_CHECKING:
    from lavant.client.integrations._pydantic_evals import Work


def execute(work: "Work", _connection: Connection, _runs: Runs, opened_with: Mapping[str, Any]) -> Evaluation:
    """Run what is missing of an evaluation. Raises RuntimeError within an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_execute(work, opened_with))
    raise RuntimeError("an event loop is running in this thread: await AsyncClient's evaluations.run instead")


async def _execute(work: "Work", opened_with: Mapping[str, Any]) -> Evaluation:
    async with AsyncClient(**opened_with) as client:
        return await work.run(client._connection, client.runs)
