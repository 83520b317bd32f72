# Made from _async/backlog.py by client/unasync.py: change that one.
"""What the runs that were left during an outage have yet to send."""

from collections import deque
from typing import TYPE_CHECKING

from lavant.client._errors import ProducerOverloaded
from lavant.client._outbox import Outbox
from lavant.client._sync.concurrency import Background, Lock

if TYPE_CHECKING:
    from lavant.client._sync.outage import Outage
    from lavant.client._sync.sender import Sender

MAX_BACKLOG_BYTES = 64 << 20
MAX_BACKLOG_RUNS = 10_000
LAST_SECONDS = 2.0  # that sending goes on while the event loop is being closed


class Backlog:
    """Sends what ended runs have left, one run after the other, in one thread or thread for all of them.

    Holds 64 MiB and 10,000 runs. Of a run that exceeds the bytes the first and the last event are kept, so that it
    ends; one that exceeds the number is dropped. What is dropped is counted as lost to the outage.
    """

    def __init__(self, outage: "Outage") -> None:
        self._outage = outage
        self._lock = Lock()
        self._parked: deque[tuple[Sender, int]] = deque()
        self._bytes = 0
        self._work: Background | None = None
        self._working = self._closed = False

    def park(self, sender: "Sender", outbox: Outbox) -> bool:
        """Take over what a run has left to send; False if it goes on by itself, as one that was dropped does."""
        with self._lock:
            if self._closed:
                return False
            if len(self._parked) >= MAX_BACKLOG_RUNS:
                self._outage.drop(outbox.run_id, outbox.count)
                outbox.fail(ProducerOverloaded(f"more than {MAX_BACKLOG_RUNS} runs wait for the server"))
                return False
            if self._bytes + outbox.size > MAX_BACKLOG_BYTES:
                self._outage.drop(outbox.run_id, outbox.shed())
            self._parked.append((sender, outbox.size))
            self._bytes += outbox.size
        self.resume()
        return True

    @property
    def head(self) -> "Sender | None":
        """The run that is being sent."""
        return self._parked[0][0] if self._parked else None

    def resume(self) -> None:
        """Send where nothing is sent, as in another event loop than the one that was closed."""
        with self._lock:
            if self._parked and not self._closed and (self._work is None or not self._working or self._work.is_over):
                self._working = True
                self._work = Background(self._run, self._persistence)

    def close(self) -> None:
        """Stop sending."""
        self._closed = True
        if self._work is not None:
            self._work.stop(0.0, self._hang_up)

    def _run(self) -> None:
        while (head := self._head()) is not None:
            sender, size = head
            sender.deliver()
            with self._lock:
                self._parked.popleft()
                self._bytes -= size

    def _head(self) -> "tuple[Sender, int] | None":
        with self._lock:
            self._working = bool(self._parked) and not self._closed
            return self._parked[0] if self._working else None

    def _hang_up(self) -> None:
        for sender, _ in tuple(self._parked):
            sender.hang_up()

    def _persistence(self) -> float:
        return 0.0 if self._closed or self._outage.is_on else LAST_SECONDS
