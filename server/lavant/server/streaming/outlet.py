"""Where a call's frames go out: one writer a call, and no write may stall for ever."""

import asyncio
from collections.abc import Awaitable, Callable

from lavant.server.errors import LavantError
from lavant.v1.error_pb2 import ErrorReason

RESUME_DELAY = 1.0  # seconds that a slow reader should wait before it resumes


class Outlet:
    """Writes frames of one call, one at a time.

    A write returns once flow control has accepted the frame: until then the frame is all the memory
    that a reader who does not read costs. The stall limit is in seconds of real time.
    """

    __slots__ = ("_pending", "_stall_limit", "_write", "reader_gone")

    def __init__(self, write: Callable[[bytes], Awaitable[None]], stall_limit: float) -> None:
        self._write = write
        self._stall_limit = stall_limit
        self._pending: asyncio.Timeout | None = None
        self.reader_gone = False

    async def send(self, frame: bytes) -> None:
        """Write one frame; raises SLOW_CONSUMER if it stalls for too long or is interrupted.

        After that nothing more can be written to the call.
        """
        try:
            async with asyncio.timeout(self._stall_limit) as self._pending:
                await self._write(frame)
        except TimeoutError:
            raise LavantError(
                ErrorReason.ERROR_REASON_SLOW_CONSUMER,
                f"nothing was accepted for {self._stall_limit:g} s; read faster, or resume when ready",
                retry_after=RESUME_DELAY,
            ) from None
        except Exception:
            self.reader_gone = True
            raise
        finally:
            self._pending = None

    def interrupt(self) -> None:
        """End the write that is under way, if any, as stalled."""
        if self._pending is not None and not self._pending.expired():
            self._pending.reschedule(asyncio.get_running_loop().time())
