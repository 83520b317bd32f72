"""Where an evaluation is run: in the client's own event loop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavant.client._async.connection import Connection
from lavant.client._async.runs import AsyncRuns
from lavant.client._evaluations import Evaluation

if TYPE_CHECKING:
    from lavant.client.integrations._pydantic_evals import Work


async def execute(work: "Work", connection: Connection, runs: AsyncRuns, _opened_with: Mapping[str, Any]) -> Evaluation:
    """Run what is missing of an evaluation."""
    return await work.run(connection, runs)
