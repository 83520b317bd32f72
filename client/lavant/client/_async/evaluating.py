"""Where evaluators are at work: in the client's own event loop."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from lavant.client._async.connection import Connection
from lavant.client._async.runs import AsyncRuns

_Result = TypeVar("_Result")
_Told = TypeVar("_Told", covariant=True)


class Work(Protocol[_Told]):
    """What pydantic-evals is needed for, and with it an event loop."""

    async def run(self, connection: Connection, runs: AsyncRuns) -> _Told:
        """Do it; return what came of it."""
        ...


async def execute(
    work: Work[_Result], connection: Connection, runs: AsyncRuns, _opened_with: Mapping[str, Any]
) -> _Result:
    """Do what evaluators are needed for."""
    return await work.run(connection, runs)
