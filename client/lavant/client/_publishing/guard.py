"""Keeps faults of recording away from the code that is recorded."""

import logging
from types import TracebackType

from lavant.client._publishing import payloads as _payloads
from lavant.client.errors import LavantError
from lavant.client.options import OnError

_log = logging.getLogger("lavant.client")


class Guard:
    """A block in which something is recorded: with `on_error="log"`, no exception leaves it, with "raise" all do.

    The first exception is logged with the subject's name; what the block did not record is lost, and nothing after it.
    Cancellation and exits of the process are no faults: they always leave the block. May be entered any number of
    times, also within itself.

    Example:
        guard = Guard("log", "the agent weather")
        with guard:
            raise LookupError("an odd value")
    """

    def __init__(self, on_error: OnError, subject: str) -> None:
        self.raises = on_error == "raise"
        self._subject = subject
        self.has_logged = False

    def refuse(self, error: Exception) -> None:
        """Raise the error, or log it if it is the first one."""
        if self.raises:
            raise error
        if not self.has_logged:
            self.has_logged = True
            described = _payloads.error_of(error)
            kind = "" if isinstance(error, LavantError) else f"{described.type}: "
            _log.warning("%s is recorded in part: %s%s", self._subject, kind, described.message)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or self.raises:
            return False
        self.refuse(error)
        return True
