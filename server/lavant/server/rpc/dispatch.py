"""Handlers of gRPC calls: they parse requests, and turn every failure into a status."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from lavant.server.auth.audit import DENIALS, Audit, CallSource, resources_of
from lavant.server.auth.principal import CALLER, Principal, Scope
from lavant.server.auth.quotas import Quota, Quotas
from lavant.server.errors import (
    ServiceError,
    incident_message,
    invalid_field,
    log_incident,
    report_internal_error,
)
from lavant.server.rpc import receiving
from lavant.server.rpc.receiving import ReceivingTurns, received
from lavant.server.rpc.status import CODES, to_trailers
from lavant.server.streaming.peers import PEER
from lavant.server.turns import Origin, serve

RequestT = TypeVar("RequestT", bound=Message)
Context = aio.ServicerContext[Any, Any]


class Call:
    """One call: who makes it, its deadline, and its messages as bytes."""

    __slots__ = ("_context", "peer", "principal", "read", "request", "tenant", "write")

    def __init__(self, context: Context, principal: Principal | None = None) -> None:
        self.principal = principal or CALLER.get()
        self.tenant = self.principal.tenant
        self.peer = PEER.get()
        self.read: Callable[[], Awaitable[Any]] = context.read
        self.write: Callable[[bytes], Awaitable[None]] = context.write
        self.request: Message | None = None  # while it is needed to say what the call is about
        self._context = context

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline, or None without one."""
        return self._context.time_remaining()


def parse(request_type: type[RequestT], data: bytes) -> RequestT:
    """Parse a message, or raise INVALID_FIELD."""
    try:
        return request_type.FromString(data)
    except DecodeError:
        name = request_type.DESCRIPTOR.full_name
        raise invalid_field("request", f"is not a {name}: malformed, nested too deeply, or not UTF-8") from None


class Served(NamedTuple):
    """Surroundings of a method: its full name, quotas of its callers, the audit, and turns of receiving requests."""

    name: str
    quotas: Quotas
    audit: Audit
    receiving: ReceivingTurns


@dataclass(frozen=True, slots=True)
class Method:
    """A method: its handler for a server, and the scopes of which a caller needs one; none: any valid credential."""

    handler: "Callable[[Served], grpc.RpcMethodHandler[bytes, bytes]]"
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """The methods of a service, by their names."""

    name: str
    methods: Mapping[str, Method]

    def handlers(self, quotas: Quotas, audit: Audit, receiving: ReceivingTurns) -> grpc.GenericRpcHandler:
        """Return the handlers for a gRPC server."""
        return grpc.method_handlers_generic_handler(
            self.name,
            {
                name: method.handler(Served(f"/{self.name}/{name}", quotas, audit, receiving))
                for name, method in self.methods.items()
            },
        )

    def scopes(self) -> dict[str, tuple[Scope, ...]]:
        """Return the scopes of each method, by its full name as gRPC calls it."""
        return {f"/{self.name}/{name}": method.scopes for name, method in self.methods.items()}


def unary(
    request_type: type[RequestT],
    method: Callable[[RequestT, Call], Awaitable[Message | bytes]],
    *scopes: Scope,
    audited: bool = False,
) -> Method:
    """Return a method that answers with one message, as such or as bytes; a caller needs one of the scopes.

    Every call of an audited method is recorded.
    """

    def handler(served: Served) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(_: object, context: Context) -> bytes:
            call = Call(context)

            async def answer() -> bytes:
                with served.quotas.using(Quota.CALLS, call.principal):
                    request = call.request = parse(request_type, await _request(context, served.receiving))
                    if audited:
                        with _audited(served, call) as resources:
                            response = await method(request, call)
                            resources += resources_of(response) if isinstance(response, Message) else ()
                    else:
                        response = await method(request, call)
                return response if isinstance(response, bytes) else response.SerializeToString()

            return await _guarded(context, served, call, answer, b"")

        return grpc.stream_unary_rpc_method_handler(handle)

    return Method(handler, scopes)


def server_stream(
    request_type: type[RequestT], method: Callable[[RequestT, Call], Awaitable[None]], *scopes: Scope
) -> Method:
    """Return a method that writes many messages itself; a caller needs one of the scopes.

    A call is recorded that takes over what another one holds.
    """

    def handler(served: Served) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(_: object, context: Context) -> None:
            call = Call(context)

            async def deliver() -> None:
                request = parse(request_type, await _request(context, served.receiving))
                if getattr(request, "take_over", False):
                    served.audit.done(CallSource("grpc", call.peer, served.name), call.principal, resources_of(request))
                await method(request, call)

            await _guarded(context, served, call, deliver, None)

        return grpc.stream_stream_rpc_method_handler(handle)

    return Method(handler, scopes)


def bidi_stream(method: Callable[[Call], Awaitable[None]], *scopes: Scope) -> Method:
    """Return a method that reads and writes many messages itself; a caller needs one of the scopes."""

    def handler(served: Served) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def handle(_: object, context: Context) -> None:
            call = Call(context)
            await _guarded(context, served, call, lambda: method(call), None)

        return grpc.stream_stream_rpc_method_handler(handle)

    return Method(handler, scopes)


@contextmanager
def _audited(served: Served, call: Call) -> Iterator[list[str]]:
    """Record what becomes of an administrative call; the block may add what it was about. Not its denial."""
    origin, resources = CallSource("grpc", call.peer, served.name), resources_of(call.request)
    try:
        yield resources
    except asyncio.CancelledError:
        served.audit.failed(origin, call.principal, "CANCELLED", resources)
        raise
    except ServiceError as error:
        if error.reason not in DENIALS:
            served.audit.failed(origin, call.principal, error.reason_name, resources)
        raise
    except Exception as error:
        incident = log_incident(error)
        served.audit.failed(origin, call.principal, "INTERNAL", resources, incident)
        raise _Incident(incident) from None
    served.audit.done(origin, call.principal, list(dict.fromkeys(resources)))


class _Incident(Exception):
    """An unexpected exception that is logged already, under a number."""


async def _request(context: Context, turns: ReceivingTurns) -> bytes:
    """Read the one message of a request.

    gRPC would wait for it as long as the call lasts, and keep in memory what has arrived. So all methods are served as
    if the caller may send many messages, and the wait is bounded here. Raises INVALID_FIELD if it does not arrive.
    """
    try:
        data = await received(context, turns)
    except TimeoutError:
        limit = receiving.REQUEST_LIMIT
        raise invalid_field("request", f"did not arrive whole within {limit:g} s; send it at once") from None
    if not isinstance(data, bytes):  # EOF
        raise invalid_field("request", "is missing: the call ended without a message")
    return data


_ResultT = TypeVar("_ResultT")


async def _guarded(
    context: Context, served: Served, call: Call, work: Callable[[], Awaitable[_ResultT]], nothing: _ResultT
) -> _ResultT:
    """Run a call's work. Of all exceptions, only ServiceError has a text that leaves the server."""
    serve(Origin(call.tenant, f"{context.peer()} {call.principal.id}"))
    try:
        return await work()
    except ServiceError as error:
        if error.reason in DENIALS:
            resources = resources_of(call.request)
            served.audit.denied(CallSource("grpc", call.peer, served.name), call.principal, error, resources)
        await context.abort(CODES[error.reason], error.message, to_trailers(error))
    except aio.InternalError:
        # A call that is cancelled during a write ends like this; nobody reads a status.
        raise asyncio.CancelledError from None
    except _Incident as known:
        await context.abort(grpc.StatusCode.INTERNAL, incident_message(str(known)))
    except Exception as error:
        await context.abort(grpc.StatusCode.INTERNAL, report_internal_error(error))
    return nothing
