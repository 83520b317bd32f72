"""What a client knows of its server's being out of reach."""

import logging
from collections.abc import Callable

from lavant.client._async.concurrency import Lock

SILENCE = 0.5  # seconds without an answer: less says nothing

_log = logging.getLogger("lavant.client")


class Outage:
    """Whether the server is known to be out of reach, and what is not recorded because of it.

    One of a client: its runs neither wait for a server that is known to be gone, nor log that each for itself. An
    outage is logged as a warning when it begins, and when it is over with what was lost to it, if anything was.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = Lock()
        self._began: float | None = None
        self._heard = 0.0
        self._events = 0
        self._runs: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether the server is known to be out of reach."""
        return self._began is not None

    def begin(self, reason: str) -> None:
        """Note that the server is out of reach. May be called again."""
        with self._lock:
            if self._began is not None:
                return
            self._began = self._monotonic()
        _log.warning("the server is out of reach: %s; runs are kept in memory and sent when it is back", reason)

    def note_silence(self, since: float) -> None:
        """Note that nothing has come since that time, though an answer was due."""
        seconds = self._monotonic() - since
        if self._heard < since and seconds >= SILENCE:
            self.begin(f"no answer for {seconds:.1f} s")

    def end(self) -> None:
        """Note that the server has answered. May be called again."""
        self._heard = self._monotonic()
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
        """Count events that are not recorded."""
        with self._lock:
            self._events += events
            self._runs.add(run_id)

    def close(self) -> None:
        """Log what is lost now that the client is closed, or the process exits."""
        with self._lock:
            lost, self._events, self._runs = self._lost(), 0, set()
        if lost:
            _log.warning("not all could be sent before the client was closed: %s are lost", lost)

    def _lost(self) -> str:
        return f"{self._events} events of {len(self._runs)} runs" if self._events else ""
