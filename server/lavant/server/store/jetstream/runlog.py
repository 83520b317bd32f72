"""A run's log on its way: what is known of it, what is asked of it, and what that makes of it."""

import asyncio
from collections import deque
from collections.abc import Container, Sequence
from typing import Any, Protocol

from lavant.server.errors import LavantError, run_not_found
from lavant.server.model import RunKey
from lavant.server.store import appending
from lavant.server.store.appending import LogState
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.location import RunSubjects
from lavant.server.store.jetstream.records import Batch, Stamps
from lavant.server.store.port import Notice
from lavant.server.store.runs import is_silent, new_log, notice_of, run_exists, run_not_ended, settings_of
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run


class RunLog:
    """What this replica knows of a run, and the changes that wait for it.

    If it is `known`, `sequence` is that of the run's last message, 0: there is none, and `state` is as of that message.
    `settled_ns` is when a change was last stored, in wall time.
    """

    __slots__ = ("key", "known", "order", "queue", "sequence", "settled_ns", "state", "subjects", "worker")

    def __init__(self, key: RunKey, subjects: RunSubjects) -> None:
        self.key = key
        self.subjects = subjects
        self.known = False
        self.sequence = 0
        self.state: LogState | None = None
        self.order = 0
        self.settled_ns = 0
        self.queue: deque[Change] = deque()
        self.worker: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """What is known may be wrong: ask the leader before the next decision."""
        self.known = False
        self.state = None


class Draft:
    """What a group of changes makes of a run: decided, and not stored yet.

    `announcements` are for the run's watchers, `changed` tells that there is something to store. `tried` holds the
    changes that an earlier draft may have stored.
    """

    def __init__(self, log: RunLog, now_ns: int, tried: "Container[Change]") -> None:
        self.key = log.key
        self.state = log.state
        self.now_ns = now_ns
        self.tried = tried
        self.settled_ns = log.settled_ns
        self.batches: list[Batch] = []
        self.announcements: list[Notice] = []
        self.changed = self.state_changed = self.deleted = False

    def log(self) -> LogState:
        """The run as the earlier changes of the group left it; raises RUN_NOT_FOUND."""
        if self.state is None:
            raise run_not_found(self.key.run_id)
        return self.state

    def add(self, producer: appending.Producer, chunk: Chunk, state_changed: bool) -> None:
        """Store a batch."""
        self.batches.append(Batch(producer, chunk))
        self.save(state_changed, chunk=chunk)

    def save(self, state_changed: bool = False, **more: Any) -> None:
        """Store how the run stands now."""
        self.changed = True
        self.state_changed = self.state_changed or state_changed
        self.announcements.append(notice_of(self.log(), **more))


class Change(Protocol):
    """Something that is asked of a run. It may be decided again, if what it stood on was not so.

    `alone` tells that it cannot be stored in one message with others.
    """

    future: "asyncio.Future[Any]"
    size: int
    alone: bool

    def decide(self, draft: Draft) -> Any:
        """Make the change to a draft, and tell the answer, or raise the refusal: the draft is then as before."""


class _Asked:
    alone = False
    size = 0

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Append(_Asked):
    """Append a batch. The answer is its receipt, or `Repeated` if it is stored already."""

    def __init__(self, batch: ProducerBatch) -> None:
        super().__init__()
        self.batch = batch
        self.size = batch.ByteSize()

    def decide(self, draft: Draft) -> BatchReceipt | appending.Repeated:
        """By the rules of `appending`."""
        outcome = appending.plan(draft.log(), self.batch, draft.now_ns)
        if isinstance(outcome, appending.Appended):
            producer = appending.Producer(
                self.batch.producer_id, self.batch.producer_epoch, self.batch.first_producer_sequence
            )
            draft.add(producer, outcome.chunk, outcome.state_changed)
            return outcome.receipt
        if isinstance(outcome, appending.Repeated):
            return outcome
        if outcome.run_changed:
            draft.save()
        return outcome.receipt


class Create(_Asked):
    """Create a run. The answer is the run, or the one that is there with the same settings."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._settings = run

    def decide(self, draft: Draft) -> Run:
        """Compare with what is there."""
        settings = settings_of(self._settings)
        if draft.state is None:
            draft.state = new_log(draft.key, settings, draft.now_ns)
            draft.save(True)
        elif settings_of(draft.state.run) != settings:
            raise run_exists(draft.key)
        return _copy(draft.state.run)


class Cancel(_Asked):
    """Remember that somebody wants the run to stop. The answer is the run."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def decide(self, draft: Draft) -> Run:
        """The first reason stays, and the end of the run is stronger."""
        log = draft.log()
        if not log.sealed and log.cancel_reason is None:
            log.cancel_reason = self._reason
            draft.save()
        return _copy(log.run)


class Delete(_Asked):
    """Delete an ended run."""

    alone = True

    def decide(self, draft: Draft) -> None:
        """Raises RUN_NOT_ENDED."""
        if draft.state is None and self in draft.tried:
            return
        log = draft.log()
        if not log.sealed:
            raise run_not_ended(draft.key)
        draft.save(True, deleted=True)
        draft.deleted = True


class Abandon(_Asked):
    """End a silent run. The answer is whether it was; if not, `state` says how it stood."""

    def __init__(self, since_ns: int) -> None:
        super().__init__()
        self._since_ns = since_ns
        self.state: LogState | None = None

    def decide(self, draft: Draft) -> bool:
        """Only if nobody has heard of its producer since; what waited for the store was not its silence."""
        self.state = draft.state
        since_ns = max(self._since_ns, draft.settled_ns)
        if draft.state is None or not is_silent(draft.state, since_ns, draft.now_ns):
            return False
        draft.add(appending.SERVER, appending.plan_abandonment(draft.state, draft.now_ns), True)
        return True


def take_group(queue: "deque[Change]", max_bytes: int) -> Sequence[Change]:
    """The next changes that can be stored in one message, in their order: at least one."""
    group = [queue.popleft()]
    size = group[0].size
    while queue and not group[-1].alone and not queue[0].alone and size + queue[0].size <= max_bytes:
        group.append(queue.popleft())
        size += group[-1].size
    return group


class StampClock:
    """Stamps for `Stamps`: wall time, but higher than every stamp before."""

    def __init__(self) -> None:
        self._newest = 0

    def next(self, now_ns: int) -> int:
        """A stamp for a change that is decided now."""
        self._newest = max(now_ns, self._newest + 1)
        return self._newest

    def saw(self, stamps: Stamps) -> None:
        """Take in what another replica has stamped."""
        self._newest = max(self._newest, stamps.stamp)


def failed(change: Change, error: LavantError) -> None:
    """Answer with an error, unless nobody waits for an answer any more."""
    if not change.future.done():
        change.future.set_exception(error)


def _copy(run: Run) -> Run:
    copied = Run()
    copied.CopyFrom(run)
    return copied
