"""The runs that a client has begun and whose end is not durable yet."""

import atexit
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lavant.client._async.backlog import LAST_SECONDS
from lavant.client._async.concurrency import Lock, monotonic

if TYPE_CHECKING:
    from lavant.client._async.connection import Connection
    from lavant.client._async.publisher import Publisher


class OpenRuns:
    """Ends the runs that nobody ends: whose blocks are still open when the client is closed or the process exits.

    Runs that were left but could not be sent yet get the same time to be delivered.
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
        """Remove a run of which there is nothing more to send."""
        with self._lock:
            self._publishers.discard(publisher)
            self._uncreated.discard(publisher)
            if not self._publishers:
                _used.discard(self)

    def note_created(self, publisher: "Publisher") -> None:
        """Note that a run exists from now on."""
        with self._lock:
            self._uncreated.discard(publisher)

    async def wait_created(self) -> None:
        """Wait until the runs exist that were begun by now, so that the client finds what it has begun.

        Two seconds at most, and not at all during an outage.
        """
        if not self._uncreated:
            return
        with self._lock:
            uncreated = list(self._uncreated)
        deadline = monotonic() + LAST_SECONDS
        for publisher in uncreated:
            await publisher.delivery.wait_known(deadline - monotonic())

    async def flush(self, timeout: float) -> bool:
        """Wait until all that was queued by now is durable; return whether it is."""
        deadline = monotonic() + timeout
        durable = [await publisher.wait_durable(max(0.0, deadline - monotonic())) for publisher in self._all()]
        return all(durable)

    async def finish(self, seconds: float, why: str) -> None:
        """End all runs, and wait until that is durable for so many seconds.

        During an outage it waits for one attempt: the server may be back.
        """
        deadline = monotonic() + seconds
        publishers = self._all()
        for publisher in publishers:
            publisher.end_unleft(why)
        self._connection.backlog.resume()
        await self._probe(publishers, deadline - monotonic())
        for publisher in publishers:
            await publisher.delivery.wait_over(deadline - monotonic(), patient=False)

    def hang_up(self) -> None:
        """Give up what is not durable by now, and count it."""
        for publisher in self._all():
            publisher.hang_up()

    async def close(self) -> None:
        """Wait until nothing is sent any more."""
        await self._connection.backlog.close()
        for publisher in self._all():
            await publisher.close()

    def finish_at_exit(self, seconds: float) -> None:
        """End all runs as the process exits, wherever their event loop is."""
        home = self._connection.current_home()
        if home is not None:
            home.run_at_exit(lambda: self.finish(seconds, "the process exited"), seconds)
        for publisher in self._all():
            publisher.count_lost()
        self._connection.outage.close()

    async def _probe(self, publishers: "list[Publisher]", seconds: float) -> None:
        for publisher in publishers:
            if self._connection.outage.is_on and await publisher.delivery.probe(seconds):
                return

    def disown(self) -> None:
        """Leave all runs to the process that this one was forked from."""
        self._lock = Lock()
        publishers, self._publishers, self._uncreated = self._publishers, set(), set()
        for publisher in publishers:
            publisher.disown()

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


def _disown_all() -> None:
    for open_runs in list(_used):
        open_runs.disown()
    _used.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
