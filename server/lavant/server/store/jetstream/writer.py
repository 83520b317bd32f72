"""The way of a change: queued, decided on how its run stands, stored, and answered."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Container, Sequence
from itertools import islice
from typing import Any

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.model import RunKey
from lavant.server.store.appending import Repeated
from lavant.server.store.jetstream.commits import Commits
from lavant.server.store.jetstream.connection import Unanswered
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Conflict
from lavant.server.store.jetstream.reader import Reader
from lavant.server.store.jetstream.runlog import Append, Change, Draft, RunLog, failed, take_group

TRY_LIMIT = 10.0  # seconds: a cluster elects a leader in less
MAX_QUEUED_BYTES = 256 << 20
_MAX_GROUP_BYTES = 512 << 10
_CAPACITY = 10_000  # runs
_LOOKED_AT = 16
_PAUSE = 0.05  # seconds before a try after an unknown outcome

logger = logging.getLogger(__name__)


class Writer:
    """Makes changes to runs: of one run in the order of the calls, of many runs at once.

    Each group of changes that has queued for a run becomes one message. It is stored only if the run's last
    message is still the one that the group was decided on; if not, the group is decided again. What was decided
    without anything to store is checked with the leader first. An unknown outcome is resolved by looking.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        location: Location,
        commits: Commits,
        reader: Reader,
    ) -> None:
        self._clock = clock
        self._location = location
        self._commits = commits
        self._reader = reader
        self._logs: OrderedDict[RunKey, RunLog] = OrderedDict()
        self._queued_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def submit(self, key: RunKey, change: Change) -> "asyncio.Future[Any]":
        """Queue a change; the future gives its answer once what it stands on is stored and announced."""
        if refusal := self._refusal():
            change.future.set_exception(refusal)
            return change.future
        log = self._log(key)
        log.queue.append(change)
        self._queued_bytes += change.size
        if log.worker is None:
            log.worker = self._keep(self._work(log))
        return change.future

    def known(self, key: RunKey) -> tuple[int, int]:
        """The last message of a run that this replica knows of, and the order of the run; 0: none."""
        log = self._logs.get(key)
        return (0, 0) if log is None else (log.sequence, log.order)

    def check_open(self) -> None:
        """Raise UNAVAILABLE once the store is closing."""
        if self._closed:
            raise unavailable("the store is closed")

    @property
    def closed(self) -> bool:
        """Whether changes are refused because the store is closing."""
        return self._closed

    async def close(self) -> None:
        """Store what is queued, and refuse what comes later."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _refusal(self) -> LavantError | None:
        if self._closed:
            return unavailable("the store is closed")
        if self._queued_bytes >= MAX_QUEUED_BYTES:
            return unavailable("the store is behind with its writing; send it again")
        return None

    def _log(self, key: RunKey) -> RunLog:
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = RunLog(key, self._location.run(key))
            if len(self._logs) > _CAPACITY:
                idle = (key for key, old in islice(self._logs.items(), _LOOKED_AT) if old.worker is None)
                if (oldest := next(idle, None)) is not None:
                    del self._logs[oldest]
        self._logs.move_to_end(key)
        return log

    async def _work(self, log: RunLog) -> None:
        while log.queue:
            group = take_group(log.queue, _MAX_GROUP_BYTES)
            try:
                await self._commit(log, group)
            except Exception as error:
                log.forget()
                for change in group:
                    failed(change, _told(error, log.key))
            finally:
                self._queued_bytes -= sum(change.size for change in group)
        log.worker = None
        over = log.state is None or log.state.sealed
        if over and self._logs.get(log.key) is log:
            del self._logs[log.key]

    async def _commit(self, log: RunLog, group: Sequence[Change]) -> None:
        """Decide, and store, until both fit together; raises UNAVAILABLE if that takes too long."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + TRY_LIMIT
        certain = False
        tried: set[Change] = set()  # may be stored, though nothing said so
        while True:
            answers: list[Any] = []
            try:
                if not log.known:
                    await self._commits.load(log, ring=bool(tried))
                    certain = True
                draft = Draft(log, self._clock.time_ns(), tried)
                answers = [_decided(change, draft) for change in group]
                if draft.changed:
                    await self._commits.store(log, draft)
                    certain = True
            except Conflict:
                log.forget()
            except Unanswered as error:
                log.forget()
                tried.update(change for change, answer in zip(group, answers, strict=False) if not _refused(answer))
                if loop.time() >= give_up_at:
                    raise unavailable("the store is out of reach") from error
                await asyncio.sleep(_PAUSE)
            else:
                if certain:
                    self._answer(log, group, answers, tried)
                    return
                log.forget()

    def _answer(self, log: RunLog, group: Sequence[Change], answers: Sequence[Any], tried: Container[Change]) -> None:
        for change, answer in zip(group, answers, strict=True):
            if isinstance(answer, LavantError):
                failed(change, answer)
            elif isinstance(answer, Repeated) and isinstance(change, Append):
                self._keep(self._answer_again(log, change, answer, duplicate=change not in tried))
            elif not change.future.done():
                change.future.set_result(answer)

    async def _answer_again(self, log: RunLog, change: Append, repeated: Repeated, *, duplicate: bool) -> None:
        """Give a stored batch its first answer; it is no duplicate if an earlier try of the same call stored it."""
        try:
            receipt = await self._reader.find_repeated(log.key, change.batch, repeated)
        except Exception as error:
            failed(change, _told(error, log.key))
        else:
            receipt.duplicate = duplicate
            if not change.future.done():
                change.future.set_result(receipt)

    def _keep(self, work: Any) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _decided(change: Change, draft: Draft) -> Any:
    """The answer to a change, which may be a refusal."""
    try:
        return change.decide(draft)
    except LavantError as error:
        return error


def _refused(answer: Any) -> bool:
    """Whether a change left nothing to store: it was refused, or is stored already."""
    return isinstance(answer, LavantError | Repeated)


def _told(error: Exception, key: RunKey) -> LavantError:
    """What a caller is told of a failure."""
    if isinstance(error, LavantError):
        return error
    if isinstance(error, Unanswered):
        return unavailable("the store is out of reach")
    logger.error("a change of run %s could not be stored", key.run_id, exc_info=error)
    return unavailable("the store could not write")
