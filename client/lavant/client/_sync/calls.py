"""Calls of gRPC's blocking API, in the one form in which the client uses either of gRPC's APIs."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from lavant.client._sync.concurrency import Clock
from lavant.client._wire.status import from_rpc_error
from lavant.client._wire.target import ChannelOption

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Metadata = Sequence[tuple[str, str]]
SentMetadata = tuple[tuple[str, str], ...]
Channel = grpc.Channel

if TYPE_CHECKING:
    from grpc import _CallIterator  # what the stubs of gRPC call it

    from lavant.client._sync.transport import ServiceStubs

    UnaryMethod = grpc.UnaryUnaryMultiCallable[_Request, _Response]
    StreamMethod = grpc.UnaryStreamMultiCallable[_Request, _Response]
    ConversationMethod = grpc.StreamStreamMultiCallable[_Request, _Response]


class CallEnded(Exception):
    """This side ended the call: it was cancelled, or the client was closed."""


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Sequence[ChannelOption]
) -> grpc.Channel:
    """Make a channel; nothing is dialled before the first call."""
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def invoke(
    method: "UnaryMethod[_Request, _Response]", request: _Request, timeout: float, metadata: SentMetadata
) -> _Response:
    """Make a single call. Raises LavantError as it fails, CallEnded once the client is closed."""
    try:
        return method(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as failure:
        if _is_closed(failure):
            raise CallEnded from None
        raise from_rpc_error(failure) from None
    except ValueError:
        raise CallEnded from None


class Call(Generic[_Response]):
    """Messages that the server sends over one call. Releases its slot on the channel when it ends.

    One reader at a time; anyone may cancel, from any thread.
    """

    def __init__(self, start: "Callable[[], _CallIterator[_Response]]", clock: Clock, stubs: "ServiceStubs") -> None:
        self.stubs = stubs
        self.metadata: SentMetadata = ()
        self._clock = clock
        self._on_end: Callable[[], None] | None = stubs.release
        self._hung_up = self._timed_out = False
        try:
            self._rpc = start()
        except ValueError:  # The channel is closed.
            self._end()
            raise CallEnded from None

    def read(self, timeout: float | None = None) -> _Response | None:
        """Return the next message, or None once the call has ended with OK.

        Raises LavantError as the call fails, and CallEnded if this side ended it. After `timeout` seconds
        the call is cancelled and TimeoutError raised.
        """
        alarm = None if timeout is None else self._clock.call_in(timeout, self._time_out)
        try:
            message = next(self._rpc)
        except StopIteration:
            self._end()
            return None
        except grpc.RpcError as failure:
            self._end()
            if self._timed_out:
                raise TimeoutError from None
            if self._hung_up or _is_closed(failure):
                raise CallEnded from None
            raise from_rpc_error(failure) from None
        finally:
            if alarm is not None:
                alarm.cancel()
        self.stubs.has_received = True
        return message

    def finish(self, timeout: float) -> None:
        """Read the call to its status, which frees what the server holds for it; cancel it if that takes long."""
        try:
            while self.read(timeout) is not None:
                pass
        except Exception:
            self.cancel()

    def cancel(self) -> None:
        """End the call at once. May be called again."""
        self._hung_up = True
        self._rpc.cancel()
        self._end()

    def _time_out(self) -> None:
        self._timed_out = True
        self._rpc.cancel()

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
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
        self._outgoing: SimpleQueue[_Request | None] = SimpleQueue()
        super().__init__(lambda: method(iter(self._outgoing.get, None), metadata=metadata), clock, stubs)
        # gRPC's thread that waits for the next message to send ends with the call.
        if not self._rpc.add_callback(self.end_writing):
            self.end_writing()

    def write(self, message: _Request) -> bool:
        """Queue a message to send. Return whether the call accepted it; if not, the call has ended: read its status."""
        if not self._rpc.is_active():
            return False
        self._outgoing.put(message)
        return True

    def end_writing(self) -> None:
        """Announce that no more messages follow. May be called again."""
        self._outgoing.put(None)


def _is_closed(failure: grpc.RpcError) -> bool:
    details = getattr(failure, "details", lambda: "")()
    return details == "Channel closed!"
