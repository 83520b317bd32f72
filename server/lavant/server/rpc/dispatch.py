"""Every call comes in here: requests are parsed, and whatever goes wrong becomes a status."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from lavant.server.errors import LavantError, invalid_field
from lavant.server.incidents import report
from lavant.server.rpc.status import CODES, to_trailers

RequestT = TypeVar("RequestT", bound=Message)
Context = aio.ServicerContext[Any, Any]

REQUEST_LIMIT = 20.0  # seconds from the beginning of a call until its request is there
_ABORT_LIMIT = 5.0  # seconds that a status may wait for a reader that does not read
_DEFAULT_TENANT = "default"


class Call:
    """One call: who makes it, how long it has, and its messages as bytes."""

    __slots__ = ("_context", "read", "tenant", "write")

    def __init__(self, context: Context) -> None:
        self.tenant = _DEFAULT_TENANT
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.write: Callable[[bytes], Awaitable[None]] = context.write
        self._context = context

    def time_remaining(self) -> float | None:
        """Seconds until the call's deadline; None: it has none."""
        return self._context.time_remaining()


def parse(request_type: type[RequestT], data: bytes) -> RequestT:
    """Read a message, or raise INVALID_FIELD."""
    try:
        return request_type.FromString(data)
    except DecodeError:
        name = request_type.DESCRIPTOR.full_name
        raise invalid_field("request", f"is not a {name}: malformed, nested too deeply, or not UTF-8") from None


def unary(
    request_type: type[RequestT], method: Callable[[RequestT, Call], Awaitable[Message | bytes]]
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """A method that answers with one message, as such or as bytes."""

    async def handle(_: object, context: Context) -> bytes:
        async def answer() -> bytes:
            response = await method(parse(request_type, await _request(context)), Call(context))
            return response if isinstance(response, bytes) else response.SerializeToString()

        return await _guarded(context, answer, b"")

    return grpc.stream_unary_rpc_method_handler(handle)


def server_stream(
    request_type: type[RequestT], method: Callable[[RequestT, Call], Awaitable[None]]
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """A method that answers with many messages, which it writes itself."""

    async def handle(_: object, context: Context) -> None:
        async def deliver() -> None:
            await method(parse(request_type, await _request(context)), Call(context))

        await _guarded(context, deliver, None)

    return grpc.stream_stream_rpc_method_handler(handle)


def bidi_stream(method: Callable[[Call], Awaitable[None]]) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """A method that reads and writes many messages itself."""

    async def handle(_: object, context: Context) -> None:
        await _guarded(context, lambda: method(Call(context)), None)

    return grpc.stream_stream_rpc_method_handler(handle)


async def _request(context: Context) -> bytes:
    """Read the one message of a request.

    gRPC would wait for it as long as the call lasts, unseen, and keep what has come of it: so all methods are served as
    ones whose callers may send many messages, and the wait is bounded here. Raises INVALID_FIELD if it does not come.
    """
    try:
        async with asyncio.timeout(REQUEST_LIMIT):
            data: Any = await context.read()
    except TimeoutError:
        raise invalid_field("request", f"did not arrive whole within {REQUEST_LIMIT:g} s; send it at once") from None
    if not isinstance(data, bytes):  # EOF
        raise invalid_field("request", "is missing: the call ended without a message")
    return data


_ResultT = TypeVar("_ResultT")


async def _guarded(context: Context, work: Callable[[], Awaitable[_ResultT]], nothing: _ResultT) -> _ResultT:
    """Run a call's work. No exception's text but a LavantError's leaves the server."""
    try:
        return await work()
    except LavantError as error:
        await _abort(context, CODES[error.reason], error.message, to_trailers(error))
    except aio.InternalError:
        # A call that is cancelled within a write ends like this; nobody is left to be told.
        raise asyncio.CancelledError from None
    except Exception as error:
        await _abort(context, grpc.StatusCode.INTERNAL, report(error))
    return nothing


async def _abort(
    context: Context, code: grpc.StatusCode, message: str, trailers: tuple[tuple[str, bytes], ...] = ()
) -> None:
    """End the call with a status. Behind a stalled write it goes out once the reader reads again."""
    try:
        async with asyncio.timeout(_ABORT_LIMIT):
            await context.abort(code, message, trailers)
    except TimeoutError:
        return
