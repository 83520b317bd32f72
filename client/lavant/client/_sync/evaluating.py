"""Where evaluators are at work: in an event loop of its own, which pydantic-evals needs, over another connection."""

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from lavant.client._async.client import AsyncClient
from lavant.client._async.evaluating import Work
from lavant.client._sync.connection import Connection
from lavant.client._sync.runs import Runs

_Result = TypeVar("_Result")


def execute(work: Work[_Result], _connection: Connection, _runs: Runs, opened_with: Mapping[str, Any]) -> _Result:
    """Do what evaluators are needed for. Raises RuntimeError within an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_execute(work, opened_with))
    raise RuntimeError("an event loop is running in this thread: await AsyncClient's method instead")


async def _execute(work: Work[_Result], opened_with: Mapping[str, Any]) -> _Result:
    async with AsyncClient(**opened_with) as client:
        return await work.run(client._connection, client.runs)
