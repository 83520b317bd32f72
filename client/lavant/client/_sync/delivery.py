# Made from _async/delivery.py by client/unasync.py: change that one.
"""Waiting for what a run's sender does, which goes on whoever waits."""

from lavant.client._errors import Unavailable
from lavant.client._outbox import Outbox
from lavant.client._sync.backlog import LAST_SECONDS
from lavant.client._sync.concurrency import Signal, monotonic
from lavant.client._sync.connection import Connection
from lavant.client._sync.sender import Sender


class Delivery:
    """Bounded waits for a run's creation, its events' receipts and its end. All times are in seconds."""

    def __init__(self, connection: Connection, outbox: Outbox, sender: Sender, changed: Signal) -> None:
        self._connection = connection
        self._outage = connection.outage
        self._outbox = outbox
        self._sender = sender
        self._changed = changed

    def wait_created(self, timeout: float) -> None:
        """Wait until the run exists. Raises what prevents it, Unavailable after `timeout`."""
        sender = self._sender
        self._changed.wait_for(lambda: sender.is_created or self._outbox.failure is not None, timeout)
        if self._outbox.failure is not None:
            raise self._outbox.failure
        if not sender.is_created:
            raise sender.trouble or Unavailable(f"the run was not created within {timeout:g} s")

    def wait_known(self, timeout: float) -> None:
        """Wait until readers find the run, or know that they do not."""
        sender, outbox, outage = self._sender, self._outbox, self._outage
        self._changed.wait_for(
            lambda: sender.is_created or sender.is_over or outbox.failure is not None or outage.is_on, timeout
        )

    def wait_for_room(self, timeout: float, *, patient: bool) -> None:
        """Wait until an event can be queued. Not `patient`: not during an outage."""
        outbox, outage, began = self._outbox, self._outage, monotonic()
        self._changed.wait_for(lambda: outbox.has_room() or (outage.is_on and not patient), timeout)
        self._outage.note_silence(began)

    def wait_durable(self, timeout: float | None, *, patient: bool) -> bool:
        """Wait until everything queued is durable; tell whether it is.

        Not `patient`: an outage ends the wait, after one more attempt.
        """
        outbox, outage = self._outbox, self._outage
        deadline = None if timeout is None else monotonic() + timeout
        if outage.is_on and not outbox.is_empty:
            self.probe(LAST_SECONDS if timeout is None else timeout)
        left = None if deadline is None else max(0.0, deadline - monotonic())
        self._changed.wait_for(
            lambda: outbox.is_empty or outbox.failure is not None or (outage.is_on and not patient), left
        )
        return outbox.is_empty and outbox.failure is None

    def wait_over(self, timeout: float, *, patient: bool) -> bool:
        """Wait until nothing more is sent; tell whether that is so. Not `patient`: not during an outage.

        Whoever is cancelled meanwhile waits two seconds more.
        """
        sender, outage, began = self._sender, self._outage, monotonic()
        is_over = self._changed.wait_for(
            lambda: sender.is_over or (outage.is_on and not patient), max(0.0, timeout), shield=LAST_SECONDS
        )
        if sender.is_over:
            sender.join()
        elif not is_over and not patient:
            outage.note_silence(began)
        return sender.is_over

    def probe(self, timeout: float) -> bool:
        """Make an attempt to send now, and wait for what becomes of it; tell whether it was made here."""
        sender, outage, failed = self._sender, self._outage, self._sender.failed_attempts
        if sender.is_over or (sender.is_parked and sender is not self._connection.backlog.head):
            return False
        self._connection.redial()
        sender.retry()
        self._changed.wait_for(
            lambda: sender.is_over or not outage.is_on or sender.failed_attempts > failed, max(0.0, timeout)
        )
        return True
