"""Running evaluations needs asyncio, as pydantic-evals does: AsyncClient does it. This client reads them."""

from lavant.client._sync.connection import Connection
from lavant.client._sync.runs import Runs


class Evaluating:
    """Holds what evaluations are read with."""

    def __init__(self, connection: Connection, runs: Runs) -> None:
        self._connection = connection
        self._runs = runs
