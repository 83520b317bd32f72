"""Calls through gRPC's asyncio API, behind the interface that `calls` of the blocking client has too."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import grpc
import grpc.aio

from lavant.client._async.concurrency import Clock, is_being_cancelled
from lavant.client._wire.status import from_rpc_error
from lavant.client._wire.target import ChannelOption

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Metadata = Sequence[tuple[str, str]]
SentMetadata = tuple[tuple[str, str], ...]
Channel = grpc.aio.Channel

if TYPE_CHECKING:
    from lavant.client._async.transport import ServiceStubs

    UnaryMethod = grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]
    StreamMethod = grpc.aio.UnaryStreamMultiCallable[_Request, _Response]
    ConversationMethod = grpc.aio.StreamStreamMultiCallable[_Request, _Response]
    ReadableCall = grpc.aio.UnaryStreamCall[_Request, _Response] | grpc.aio.StreamStreamCall[_Request, _Response]


class CallEnded(Exception):
    """This side ended the call: it was cancelled, or the client was closed."""


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[ChannelOption]
) -> grpc.aio.Channel:
    """Return a channel. The first call connects it."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


async def invoke(
    method: "UnaryMethod[_Request, _Response]", request: _Request, timeout: float, metadata: SentMetadata
) -> _Response:
    """Make a unary call. Raises LavantError if it fails, CallEnded if the client is closed."""
    try:
        return await method(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as failure:
        raise from_rpc_error(failure) from None
    except grpc.aio.UsageError:
        raise CallEnded from None
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise CallEnded from None


class Call(Generic[_Response]):
    """Messages that the server sends over one call. Releases its slot on the channel when it ends.

    One reader at a time; anyone may cancel.
    """

    def __init__(
        self, start: "Callable[[], ReadableCall[_Request, _Response]]", clock: Clock, stubs: "ServiceStubs"
    ) -> None:
        self.stubs = stubs
        self.metadata: SentMetadata = ()
        self._clock = clock
        self._on_end: Callable[[], None] | None = stubs.release
        try:
            self._rpc = start()
        except grpc.aio.UsageError:
            self._end()
            raise CallEnded from None

    async def read(self, timeout: float | None = None) -> _Response | None:
        """Return the next message, or None after the call has ended with OK.

        Raises LavantError if the call fails, and CallEnded if this side ended it. After `timeout` seconds the call is
        cancelled and TimeoutError raised.
        """
        try:
            async with self._clock.timeout(timeout):
                message = await self._rpc.read()
        except grpc.RpcError as failure:
            self._end()
            raise from_rpc_error(failure) from None
        except TimeoutError:
            self.cancel()
            raise
        except asyncio.CancelledError:
            self.cancel()
            if is_being_cancelled():
                raise
            raise CallEnded from None
        except grpc.aio.UsageError:
            self.cancel()
            raise CallEnded from None
        if message is grpc.aio.EOF:
            self._end()
            return None
        self.stubs.has_received = True
        return cast("_Response", message)

    async def finish(self, timeout: float) -> None:
        """Read the call to its status, so that the server frees its resources; cancel it after `timeout` seconds."""
        try:
            while await self.read(timeout) is not None:
                pass
        except Exception:
            self.cancel()

    def cancel(self) -> None:
        """End the call at once. May be called again."""
        self._rpc.cancel()
        self._end()

    def _end(self) -> None:
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()


class Conversation(Call[_Response], Generic[_Request, _Response]):
    """A call over which both sides send messages."""

    def __init__(
        self,
        method: "ConversationMethod[_Request, _Response]",
        metadata: SentMetadata,
        clock: Clock,
        stubs: "ServiceStubs",
    ) -> None:
        def start() -> "grpc.aio.StreamStreamCall[_Request, _Response]":
            self._writer = method(metadata=metadata)
            return self._writer

        super().__init__(start, clock, stubs)

    async def write(self, message: _Request) -> bool:
        """Send a message. Return whether the call accepted it; if not, the call has ended: read its status."""
        try:
            await self._writer.write(message)
        except (asyncio.InvalidStateError, grpc.RpcError):
            return False
        return True

    async def end_writing(self) -> None:
        """Announce that no more messages follow, unless the call has ended."""
        with suppress(asyncio.InvalidStateError, grpc.RpcError):
            await self._writer.done_writing()
