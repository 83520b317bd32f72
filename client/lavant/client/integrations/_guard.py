"""Keeps what goes wrong while recording away from the agent."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

from lavant.client import AsyncRunProducer, _payloads
from lavant.client._options import OnError

_log = logging.getLogger("lavant.client")


class Guard:
    """A block in which the agent is recorded: with `on_error="log"`, no exception leaves it.

    The first one is logged; what the block did not record is lost, and nothing after it. Cancellation and
    exits of the process are no errors: they always leave the block.

    Example:
        guard = Guard("log", "the agent weather")
        with guard:
            raise LookupError("an odd value")
    """

    def __init__(self, on_error: OnError, subject: str) -> None:
        self._raises = on_error == "raise"
        self._subject = subject
        self._has_logged = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or self._raises:
            return False
        if not self._has_logged:
            self._has_logged = True
            described = _payloads.error_of(error)
            _log.warning("%s is recorded in part: %s: %s", self._subject, described.type, described.message)
        return True


@asynccontextmanager
async def guarded_run(guard: Guard, run: AsyncRunProducer) -> AsyncIterator[AsyncRunProducer | None]:
    """Begin and end a run around a block; None if it cannot be begun. What the block raises, the run ends with."""
    is_open = False
    with guard:
        await run.__aenter__()
        is_open = True
    if not is_open:
        yield None
        return
    try:
        yield run
    except BaseException as error:
        with guard:
            await run.__aexit__(type(error), error, error.__traceback__)
        raise
    with guard:
        await run.__aexit__(None, None, None)
