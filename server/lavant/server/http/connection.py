"""One connection of uvicorn's, with limits on how long its peer may do nothing."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_LIMIT = 20.0  # seconds from a connection's beginning, or a response's end, until a request's head is there


class Connection(H11Protocol):
    """Cuts off a peer that takes nothing of what is written for `stall_limit` seconds, or never asks for anything.

    uvicorn waits for either without end, and a closed connection waits until what is left was taken. A
    peer that takes little by little is not cut off.
    """

    def __init__(self, *args: Any, stall_limit: float, head_limit: float = HEAD_LIMIT, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stall_limit = stall_limit
        self._head_limit = head_limit
        self._stalled: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._stalled, self._idle):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the peer to read."""
        super().pause_writing()
        self._await_progress()

    def resume_writing(self) -> None:
        """Go on: it has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _await_head(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(self._head_limit, self._cut_if_idle)

    def _cut_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _await_progress(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._stall_limit, self._cut_if_stalled, left)

    def _cut_if_stalled(self, left_before: int) -> None:
        if self.transport.get_write_buffer_size() < left_before:
            self._await_progress()
        else:
            self.transport.abort()
