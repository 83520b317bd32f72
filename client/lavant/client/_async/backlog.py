"""Events that a client's runs have not sent: during an outage, and when the client closes."""

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from lavant.client._async.concurrency import Background, Lock, monotonic
from lavant.client._publishing.outbox import Outbox
from lavant.client.errors import ProducerOverloaded

if TYPE_CHECKING:
    from lavant.client._async.publisher import Publisher
    from lavant.client._async.sender import Sender
    from lavant.client._async.transport import Connection


SILENCE = 0.5  # seconds without an answer; shorter silences are normal

_log = logging.getLogger("lavant.client")


class Outage:
    """The state of a client's server: reachable, or known to be unreachable, with the number of events lost to that.

    All runs of a client share it, so that they neither wait for a server that is gone, nor log that each. It is logged
    as a warning when an outage begins, and at its end with what was lost.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._began: float | None = None
        self._last_answer = 0.0
        self._events = 0
        self._runs: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether the server is known to be unreachable."""
        return self._began is not None

    def begin(self, reason: str) -> None:
        """Note that the server is unreachable. May be called again."""
        with self._lock:
            if self._began is not None:
                return
            self._began = self._monotonic()
        _log.warning("the server is out of reach: %s; runs are kept in memory and sent when it is back", reason)

    def note_silence(self, since: float) -> None:
        """Note that no answer has come since that time."""
        seconds = self._monotonic() - since
        if self._last_answer < since and seconds >= SILENCE:
            self.begin(f"no answer for {seconds:.1f} s")

    def end(self) -> None:
        """Note that the server has answered. May be called again."""
        self._last_answer = self._monotonic()
        if self._began is None:
            return
        with self._lock:
            began, self._began = self._began, None
            lost, self._events, self._runs = self._lost(), 0, set()
        if began is not None:
            seconds = self._monotonic() - began
            _log.log(
                logging.WARNING if lost else logging.INFO,
                "the server is back after %.1f s; %s",
                seconds,
                f"{lost} were dropped" if lost else "nothing was lost",
            )

    def drop(self, run_id: str, events: int) -> None:
        """Count events that are lost."""
        with self._lock:
            self._events += events
            self._runs.add(run_id)

    def close(self) -> None:
        """Log what is lost, when the client is closed or the process exits."""
        with self._lock:
            lost, self._events, self._runs = self._lost(), 0, set()
        if lost:
            _log.warning("not all could be sent before the client was closed: %s are lost", lost)

    def _lost(self) -> str:
        return f"{self._events} events of {len(self._runs)} runs" if self._events else ""


MAX_BACKLOG_BYTES = 64 << 20
MAX_BACKLOG_RUNS = 10_000
LAST_SECONDS = 2.0  # in which events are still sent while the event loop is being closed


class Backlog:
    """Sends what runs that have ended during an outage have left, one run after the other, in one background task.

    Holds 64 MiB and 10,000 runs. Of a run beyond the bytes, only the first and the last event are kept, so that it
    ends; a run beyond the number is dropped. What is dropped counts as lost to the outage.
    """

    def __init__(self, outage: "Outage") -> None:
        self._outage = outage
        self._lock = Lock()
        self._deferred: deque[tuple[Sender, int]] = deque()
        self._bytes = 0
        self._work: Background | None = None
        self._working = self._closed = False

    def defer(self, sender: "Sender", outbox: Outbox) -> bool:
        """Accept the unsent events of a run. Return False if they are dropped, or if the client is closed."""
        with self._lock:
            if self._closed:
                return False
            if len(self._deferred) >= MAX_BACKLOG_RUNS:
                self._outage.drop(outbox.run_id, outbox.count)
                outbox.fail(ProducerOverloaded(f"more than {MAX_BACKLOG_RUNS} runs wait for the server"))
                return False
            if self._bytes + outbox.size > MAX_BACKLOG_BYTES:
                self._outage.drop(outbox.run_id, outbox.drop_unsent())
            self._deferred.append((sender, outbox.size))
            self._bytes += outbox.size
        self.resume()
        return True

    @property
    def head(self) -> "Sender | None":
        """The run that is being sent."""
        return self._deferred[0][0] if self._deferred else None

    def resume(self) -> None:
        """Continue sending where nothing sends, as in a new event loop."""
        with self._lock:
            if self._deferred and not self._closed and (self._work is None or not self._working or self._work.is_over):
                self._working = True
                self._work = Background(self._run, self._persistence)

    async def close(self) -> None:
        """Stop sending."""
        self._closed = True
        if self._work is not None:
            await self._work.stop(0.0, self._abort)

    async def _run(self) -> None:
        while (head := self._head()) is not None:
            sender, size = head
            await sender.deliver()
            with self._lock:
                self._deferred.popleft()
                self._bytes -= size

    def _head(self) -> "tuple[Sender, int] | None":
        with self._lock:
            self._working = bool(self._deferred) and not self._closed
            return self._deferred[0] if self._working else None

    def _abort(self) -> None:
        for sender, _ in tuple(self._deferred):
            sender.abort()

    def _persistence(self) -> float:
        return 0.0 if self._closed or self._outage.is_on else LAST_SECONDS


class OpenRuns:
    """The runs of a client whose end is not durable yet.

    Ends those that nobody has ended when the client is closed or the process exits. Runs that have ended but could not
    be sent get the same time to be delivered.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._lock = Lock()
        self._publishers: set[Publisher] = set()
        self._uncreated: set[Publisher] = set()

    def __bool__(self) -> bool:
        return bool(self._publishers)

    def add(self, publisher: "Publisher") -> None:
        """Add a run that begins."""
        with self._lock:
            self._publishers.add(publisher)
            self._uncreated.add(publisher)
            _used.add(self)

    def discard(self, publisher: "Publisher") -> None:
        """Remove a run with nothing left to send."""
        with self._lock:
            self._publishers.discard(publisher)
            self._uncreated.discard(publisher)
            if not self._publishers:
                _used.discard(self)

    def note_created(self, publisher: "Publisher") -> None:
        """Note that a run exists on the server."""
        with self._lock:
            self._uncreated.discard(publisher)

    async def wait_created(self, run_id: str = "") -> None:
        """Wait until a run exists on the server if it has begun here, so that a call finds it; without an id, all runs.

        Waits up to two seconds, and not at all during an outage.
        """
        if not self._uncreated:
            return
        with self._lock:
            uncreated = [run for run in self._uncreated if not run_id or run.run_id == run_id]
        deadline = monotonic() + LAST_SECONDS
        for publisher in uncreated:
            await publisher.delivery.wait_known(deadline - monotonic())

    async def flush(self, timeout: float) -> bool:
        """Wait until all events queued so far are durable. Return whether they are."""
        deadline = monotonic() + timeout
        durable = [await publisher.wait_durable(max(0.0, deadline - monotonic())) for publisher in self._all()]
        return all(durable)

    async def finish(self, seconds: float, why: str) -> None:
        """End all runs, and wait up to `seconds` until their ends are durable.

        During an outage, waits for one attempt, because the server may be reachable again.
        """
        deadline = monotonic() + seconds
        publishers = self._all()
        for publisher in publishers:
            publisher.end_open(why)
        self._connection.backlog.resume()
        await self._probe(publishers, deadline - monotonic())
        for publisher in publishers:
            await publisher.delivery.wait_over(deadline - monotonic(), patient=False)

    def abort(self) -> None:
        """Drop what is not durable, and count it as lost."""
        for publisher in self._all():
            publisher.abort()

    async def close(self) -> None:
        """Wait until nothing is being sent."""
        await self._connection.backlog.close()
        for publisher in self._all():
            await publisher.close()

    def finish_at_exit(self, seconds: float) -> None:
        """End all runs at the exit of the process, in the event loop that they belong to."""
        runtime = self._connection.current_runtime()
        if runtime is not None:
            runtime.run_at_exit(lambda: self.finish(seconds, "the process exited"), seconds)
        for publisher in self._all():
            publisher.count_lost()
        self._connection.outage.close()

    async def _probe(self, publishers: "list[Publisher]", seconds: float) -> None:
        for publisher in publishers:
            if self._connection.outage.is_on and await publisher.delivery.probe(seconds):
                return

    def forget(self) -> None:
        """Leave all runs to the process that this one was forked from."""
        self._lock = Lock()
        publishers, self._publishers, self._uncreated = self._publishers, set(), set()
        for publisher in publishers:
            publisher.forget()

    def _all(self) -> "list[Publisher]":
        with self._lock:
            return list(self._publishers)


# Kept alive until their runs have ended: a client that nobody refers to any more may have some.
_used: set[OpenRuns] = set()


@atexit.register
def _finish_all() -> None:
    deadline = monotonic() + LAST_SECONDS
    for open_runs in list(_used):
        with suppress(Exception):
            open_runs.finish_at_exit(max(0.0, deadline - monotonic()))


def _forget_all() -> None:
    for open_runs in list(_used):
        open_runs.forget()
    _used.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
