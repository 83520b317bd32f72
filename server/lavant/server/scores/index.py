"""All scores, in a database of this process's own that is made of the logs and can be made of them again."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from lavant.server.scores import listing, totals
from lavant.server.scores.answers import score_group
from lavant.server.scores.intake import Intake, Progress, read_progress, take_in
from lavant.server.scores.listing import ScorePage
from lavant.server.scores.recent import Recent, add_up_recent
from lavant.server.scores.schema import open_file, open_nameless
from lavant.server.scores.totals import Group, Grouping
from lavant.server.store.port import Opening
from lavant.v1.score_service_pb2 import ScoreFilter, ScoreGroup

_ONLY = Opening(0, 0)  # of a store that is opened by nobody else
_Answer = TypeVar("_Answer")


class ScoreIndex:
    """Finds scores and adds them up. One thread does it all, a thing at a time.

    With a path it outlives the process, for as long as nobody else opens its store; without one it goes
    with the process.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lavant-scores")

    @classmethod
    async def open(cls, path: Path | None, epoch: str, opening: Opening = _ONLY) -> "ScoreIndex":
        """Open the index, or begin a new one if there is none that is whole and of the store's last opening."""
        if path is None:
            return cls(await asyncio.to_thread(open_nameless))
        return cls(await asyncio.to_thread(open_file, path, epoch, opening))

    async def progress(self) -> Progress:
        """Tell how far it has come."""
        return await self.ask(read_progress)

    async def take_in(self, intake: Intake) -> None:
        """Store what was read, whole or not at all."""
        await self.ask(partial(take_in, intake=intake))

    async def list_scores(self, tenant: str, wanted: ScoreFilter, limit: int, after: int | None) -> ScorePage:
        """List single scores, those of the latest runs first."""
        return await self.ask(partial(listing.list_scores, tenant=tenant, wanted=wanted, limit=limit, after=after))

    async def query(
        self, tenant: str, wanted: ScoreFilter, grouping: Grouping, percentiles: Sequence[float]
    ) -> list[ScoreGroup]:
        """Tell what scores add up to; raises INVALID_FIELD if that would be too much."""

        def answer(connection: apsw.Connection) -> list[ScoreGroup]:
            groups = totals.add_up(connection, tenant, wanted, grouping)
            return [score_group(group, grouping, percentiles) for group in groups]

        return await self.ask(answer)

    async def add_up(self, tenant: str, wanted: ScoreFilter, grouping: Grouping) -> list[Group]:
        """Add scores up; raises INVALID_FIELD if there are too many groups."""
        return await self.ask(partial(totals.add_up, tenant=tenant, wanted=wanted, grouping=grouping))

    async def recent(self, tenant: str, rule_id: str, name: str, since_ns: int) -> Recent:
        """Add up what was recorded of a rule after a point in time, by a score's name or by any (empty)."""
        return await self.ask(partial(add_up_recent, tenant=tenant, rule_id=rule_id, name=name, since_ns=since_ns))

    async def close(self) -> None:
        """Finish what is under way, and let go of the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def ask(self, work: Callable[[apsw.Connection], _Answer]) -> _Answer:
        """Do what reads the index, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
