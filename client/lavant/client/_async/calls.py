"""Calls of gRPC's asyncio API, in the one form in which the client uses either of gRPC's APIs."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import grpc
import grpc.aio

from lavant.client._async.concurrency import Clock, is_being_cancelled
from lavant.client._status import from_rpc_error
from lavant.client._target import ChannelOption

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Metadata = Sequence[tuple[str, str]]
SentMetadata = tuple[tuple[str, str], ...]
Channel = grpc.aio.Channel

if TYPE_CHECKING:
    from lavant.client._async.channels import Lane

    UnaryMethod = grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]
    StreamMethod = grpc.aio.UnaryStreamMultiCallable[_Request, _Response]
    ConversationMethod = grpc.aio.StreamStreamMultiCallable[_Request, _Response]
    ReadableCall = grpc.aio.UnaryStreamCall[_Request, _Response] | grpc.aio.StreamStreamCall[_Request, _Response]


class HungUp(Exception):
    """This side ended the call: it was cancelled, or the client was closed."""


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[ChannelOption]
) -> grpc.aio.Channel:
    """Make a channel; nothing is dialled before the first call."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


async def invoke(
    method: "UnaryMethod[_Request, _Response]", request: _Request, timeout: float, metadata: SentMetadata
) -> _Response:
    """Make a single call. Raises LavantError as it fails, HungUp once the client is closed."""
    try:
        return await method(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as failure:
        raise from_rpc_error(failure) from None
    except grpc.aio.UsageError:
        raise HungUp from None
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise HungUp from None


class Call(Generic[_Response]):
    """Messages that the server sends over one call, whose place on its lane is given back once, when it is over.

    One reader at a time; anyone may cancel.
    """

    def __init__(self, start: "Callable[[], ReadableCall[_Request, _Response]]", clock: Clock, lane: "Lane") -> None:
        self.lane = lane
        self._clock = clock
        self._on_end: Callable[[], None] | None = lane.release
        try:
            self._rpc = start()
        except grpc.aio.UsageError:
            self._end()
            raise HungUp from None

    async def read(self, timeout: float | None = None) -> _Response | None:
        """Return the next message, or None once the call has ended with OK.

        Raises LavantError as the call fails, and HungUp if this side ended it. After `timeout` seconds
        the call is cancelled and TimeoutError raised.
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
            raise HungUp from None
        except grpc.aio.UsageError:
            self.cancel()
            raise HungUp from None
        if message is grpc.aio.EOF:
            self._end()
            return None
        self.lane.heard = True
        return cast("_Response", message)

    async def finish(self, timeout: float) -> None:
        """Read the call to its status, which frees what the server holds for it; cancel it if that takes long."""
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
        lane: "Lane",
    ) -> None:
        def start() -> "grpc.aio.StreamStreamCall[_Request, _Response]":
            self._writer = method(metadata=metadata)
            return self._writer

        super().__init__(start, clock, lane)

    async def write(self, message: _Request) -> bool:
        """Send a message; tell whether the call took it. If not, the call is over: read its status."""
        try:
            await self._writer.write(message)
        except (asyncio.InvalidStateError, grpc.RpcError):
            return False
        return True

    async def end_writing(self) -> None:
        """Tell the server that no more messages come, unless the call is over already."""
        with suppress(asyncio.InvalidStateError, grpc.RpcError):
            await self._writer.done_writing()
