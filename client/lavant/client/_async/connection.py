"""The channel to the server, and how single calls are made over it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from lavant.client._async.concurrency import Cancelled, ClientClosed, is_being_cancelled, monotonic, sleep
from lavant.client._backoff import Backoff
from lavant.client._errors import LavantError
from lavant.client._status import from_rpc_error, is_cut
from lavant.client._target import ChannelOption, channel_options
from lavant.v1.event_service_pb2_grpc import EventServiceStub
from lavant.v1.run_service_pb2_grpc import RunServiceStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Metadata = Sequence[tuple[str, str]]


class Connection:
    """A channel, its stubs, and what every call carries."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[ChannelOption],
        metadata: Metadata,
        timeout: float,
        new_backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.metadata = _checked(metadata)
        chosen = channel_options(target, options)
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options=chosen)
            if credentials
            else grpc.aio.insecure_channel(target, options=chosen)
        )
        self.runs = RunServiceStub(self._channel)
        self.events = EventServiceStub(self._channel)
        self.timeout = timeout
        self.new_backoff = new_backoff

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        timeout: float | None = None,
    ) -> _Response:
        """Make a call within `timeout` seconds (default: the client's), again and again while it is cut off.

        For calls that are safe to make twice: all of lavant's are.
        """
        deadline = monotonic() + (self.timeout if timeout is None else timeout)
        backoff = self.new_backoff()
        while True:
            try:
                return await method(request, timeout=deadline - monotonic(), metadata=self.metadata)
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)
            except ClientClosed:
                raise LavantError("the client is closed") from None
            except Cancelled:
                if is_being_cancelled():
                    raise
                raise LavantError("the client was closed") from None
            await self._wait_or_raise(error, backoff, deadline)

    async def _wait_or_raise(self, error: LavantError, backoff: Backoff, deadline: float) -> None:
        delay = backoff.next(error.retry_after)
        if not is_cut(error) or monotonic() + delay >= deadline:
            raise error
        await sleep(delay)


def _checked(metadata: Metadata) -> Metadata:
    for key, value in metadata:
        if not key.endswith("-bin") and not (value.isascii() and value.isprintable()):
            # The value may be a secret.
            name = "api_key" if key == "authorization" else f"metadata {key!r}"
            raise ValueError(f"{name} must be printable ASCII: no line breaks or other control characters")
    return tuple(metadata)
