"""Changes of runs: the known state of a log, the changes that are requested, and drafts that apply them."""

import asyncio
from collections import deque
from collections.abc import Container, Sequence
from typing import Any, Protocol

from lavant.server.errors import ServiceError, run_not_found
from lavant.server.model import RunKey, is_system_run
from lavant.server.store import appending
from lavant.server.store.appending import LogState
from lavant.server.store.chunk import Chunk
from lavant.server.store.jetstream.location import RunSubjects
from lavant.server.store.jetstream.records import Batch, Stamps
from lavant.server.store.ownership import Owner
from lavant.server.store.port import Notice
from lavant.server.store.restrictions import Restriction, check_within
from lavant.server.store.runs import check_settings, is_silent, new_log, new_run, notice_of, run_not_ended
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import Run


class RunLog:
    """Log of a run as this replica knows it, and the queue of changes for it.

    If `known`, `sequence` is that of the run's last message in its stream, 0 if there is none, and `state` is the
    state after that message. `settled_ns` is when a change was last stored, in wall time. `listed_bytes` are those of
    the run's events that lists know of, at least.
    """

    __slots__ = (
        "key", "known", "listed_bytes", "order", "queue", "sequence", "settled_ns", "state", "subjects", "worker",
    )  # fmt: skip

    def __init__(self, key: RunKey, subjects: RunSubjects) -> None:
        self.key = key
        self.subjects = subjects
        self.known = False
        self.sequence = 0
        self.state: LogState | None = None
        self.order = 0
        self.settled_ns = 0
        self.listed_bytes = 0
        self.queue: deque[Change] = deque()
        self.worker: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Mark the state as unknown: it is read from the leader before the next decision."""
        self.known = False
        self.state = None


class Draft:
    """Result of a group of changes to a run: decided, but not stored yet.

    `announcements` are for the run's watchers. `changed`: whether there is something to store. `tried` holds the
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
        """Return the run after the earlier changes of the group. Raises RUN_NOT_FOUND."""
        if self.state is None:
            raise run_not_found(self.key.run_id)
        return self.state

    def add(self, producer: appending.Producer, chunk: Chunk, state_changed: bool) -> None:
        """Add a batch to what is stored."""
        self.batches.append(Batch(producer, chunk))
        self.save(state_changed, chunk=chunk)

    def save(self, state_changed: bool = False, **more: Any) -> None:
        """Add the current state of the run to what is stored."""
        self.changed = True
        self.state_changed = self.state_changed or state_changed
        self.announcements.append(notice_of(self.log(), **more))


class Change(Protocol):
    """Requested change of a run. It is decided again if another replica has changed the run meanwhile.

    `alone`: whether it cannot share a message with other changes.
    """

    future: "asyncio.Future[Any]"
    size: int
    alone: bool

    def decide(self, draft: Draft) -> Any:
        """Apply the change to a draft and return the result, or raise the refusal and leave the draft unchanged."""


class _Asked:
    alone = False
    size = 0

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Append(_Asked):
    """Append of a batch that a principal sent. The result is its receipt, or `Repeated` if it is already stored."""

    def __init__(self, batch: ProducerBatch, owner: Owner, within: Restriction | None) -> None:
        super().__init__()
        self.batch = batch
        self._owner = owner
        self._within = within
        self.size = batch.ByteSize()

    def decide(self, draft: Draft) -> BatchReceipt | appending.Repeated:
        """Apply the rules of `appending`, to a new run if the batch creates it."""
        log, is_new = draft.state, draft.state is None
        if self.batch.HasField("create"):
            wanted = new_run(self.batch.create)
            if log is None:
                log = new_log(draft.key, wanted, draft.now_ns)
            else:
                check_settings(draft.key, log.run, wanted)
        if draft.state is not None:
            check_within(self._within, draft.state.run)
        by_server = is_system_run(draft.key)
        outcome = appending.plan(log or draft.log(), self.batch, draft.now_ns, self._owner, by_server=by_server)
        draft.state = log
        if isinstance(outcome, appending.Appended):
            producer = appending.Producer(
                self.batch.producer_id, self.batch.producer_epoch, self.batch.first_producer_sequence
            )
            draft.add(producer, outcome.chunk, is_new or outcome.state_changed)
            return outcome.receipt
        if isinstance(outcome, appending.Repeated):
            return outcome
        if outcome.run_changed:
            draft.save(is_new)
        return outcome.receipt


class Create(_Asked):
    """Creation of a run. The result is the new run, or the stored run with the same settings."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._settings = run

    def decide(self, draft: Draft) -> Run:
        """Create the run unless it exists. Raises RUN_EXISTS if its settings differ."""
        wanted = new_run(self._settings)
        if draft.state is None:
            draft.state = new_log(draft.key, wanted, draft.now_ns)
            draft.save(True)
        else:
            check_settings(draft.key, draft.state.run, wanted)
        return _copy(draft.state.run)


class Cancel(_Asked):
    """Request to cancel a run. The result is the run."""

    def __init__(self, reason: str, within: Restriction | None) -> None:
        super().__init__()
        self._reason = reason
        self._within = within

    def decide(self, draft: Draft) -> Run:
        """Record the reason, unless one is recorded or the run has ended."""
        log = draft.log()
        check_within(self._within, log.run)
        if not log.sealed and log.cancel_reason is None:
            log.cancel_reason = self._reason
            draft.save()
        return _copy(log.run)


class Delete(_Asked):
    """Deletion of an ended run."""

    alone = True

    def __init__(self, within: Restriction | None) -> None:
        super().__init__()
        self._within = within

    def decide(self, draft: Draft) -> None:
        """Delete the run. Raises RUN_NOT_ENDED."""
        if draft.state is None and self in draft.tried:
            return
        log = draft.log()
        check_within(self._within, log.run)
        if not log.sealed:
            raise run_not_ended(draft.key)
        draft.save(True, deleted=True)
        draft.deleted = True


class Abandon(_Asked):
    """End of a silent run. The result is whether it was ended; if not, `state` is its current state."""

    def __init__(self, since_ns: int) -> None:
        super().__init__()
        self._since_ns = since_ns
        self.state: LogState | None = None

    def decide(self, draft: Draft) -> bool:
        """End the run if its producers are still silent; time in which batches waited for the store does not count."""
        self.state = draft.state
        since_ns = max(self._since_ns, draft.settled_ns)
        if draft.state is None or not is_silent(draft.state, since_ns, draft.now_ns):
            return False
        draft.add(appending.SERVER, appending.plan_abandonment(draft.state, draft.now_ns), True)
        return True


def take_group(queue: "deque[Change]", max_bytes: int) -> Sequence[Change]:
    """Take the next changes that fit in one message from a queue, in their order: at least one."""
    group = [queue.popleft()]
    size = group[0].size
    while queue and not group[-1].alone and not queue[0].alone and size + queue[0].size <= max_bytes:
        group.append(queue.popleft())
        size += group[-1].size
    return group


class StampClock:
    """Clock for `Stamps`: wall time, but higher than every earlier stamp."""

    def __init__(self) -> None:
        self._newest = 0

    def next(self, now_ns: int) -> int:
        """Return a stamp for a change that is decided now."""
        self._newest = max(now_ns, self._newest + 1)
        return self._newest

    def saw(self, stamps: Stamps) -> None:
        """Record the stamps of another replica; later ones are higher."""
        self._newest = max(self._newest, stamps.stamp)


def failed(change: Change, error: ServiceError) -> None:
    """Fail a change's future with an error, unless its caller was cancelled."""
    if not change.future.done():
        change.future.set_exception(error)


def _copy(run: Run) -> Run:
    copied = Run()
    copied.CopyFrom(run)
    return copied
