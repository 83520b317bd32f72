"""Admission of gRPC calls: who calls, and whether the credential allows it, before anything of a request is read."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import isasyncgen
from typing import Any, TypeAlias

import grpc
from grpc import aio

from lavant.server.auth.audit import DENIALS, Audit, CallSource
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.mtls import CertificatePrincipals, names_of_grpc_peer
from lavant.server.auth.principal import CALLER, Principal, Scope, unauthenticated
from lavant.server.errors import ServiceError, invalid_field
from lavant.server.rpc.limits import HEALTH
from lavant.server.rpc.status import CODES, to_trailers
from lavant.server.streaming.peers import address_of

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]

_MAX_METADATA = 8 << 10  # bytes of all keys and values: gRPC's own limit binds only peers that honour it


class CallAdmission(aio.ServerInterceptor):
    """Outermost interceptor of all services: it admits a call, or ends it before its request is read.

    A method is allowed to whoever has one of its `scopes`. One that is not among them needs valid credentials only.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        scopes: Mapping[str, tuple[Scope, ...]],
        audit: Audit,
        by_certificate: CertificatePrincipals | None = None,
    ) -> None:
        self._authenticate = authenticate
        self._scopes = scopes
        self._audit = audit
        self._by_certificate = by_certificate

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> _Handler:
        """Return the handler of the call, or one that refuses it."""
        try:
            is_admitted = self._admit(details)
        except ServiceError as error:
            return _refusal(error, partial(self._record, error, details.method))
        handler = await continuation(details)
        return handler if is_admitted or handler is None else self._identifying(handler, details.method)

    def _admit(self, details: grpc.HandlerCallDetails) -> bool:
        """Return whether the call is admitted; if not, its caller is known by a certificate."""
        method: str = details.method
        size = 0
        given: list[str] = []
        for key, value in details.invocation_metadata or ():
            size += len(key) + len(value)
            if key == "authorization":
                given.append(value if isinstance(value, str) else value.decode("latin-1"))
        if size > _MAX_METADATA:
            raise invalid_field("metadata", f"must be at most {_MAX_METADATA:,} bytes in all, not {size:,}")
        if method.startswith(HEALTH):
            return True
        if len(given) > 1:
            raise unauthenticated("the call has several credentials; send one")
        if self._by_certificate is not None and not given:
            return False
        self._enter(self._authenticate(given[0] if given else None), method)
        return True

    def _enter(self, principal: Principal, method: str) -> None:
        CALLER.set(principal)  # before it is refused, for the audit
        scopes = self._scopes.get(method)
        if scopes:
            principal.require(*scopes)

    def _identifying(self, handler: "grpc.RpcMethodHandler[Any, Any]", method: str) -> _Handler:
        """Return a handler that admits the caller by its certificate, which gRPC shows to handlers only.

        All services read their requests themselves, so this too is before anything of a request is read.
        """

        async def admit(context: aio.ServicerContext[Any, Any]) -> None:
            assert self._by_certificate is not None  # noqa: S101
            try:
                self._enter(self._by_certificate(names_of_grpc_peer(context.auth_context())), method)
            except ServiceError as error:
                self._record(error, method, context)
                await context.abort(CODES[error.reason], error.message, to_trailers(error))

        serve: Any = handler.stream_stream if handler.response_streaming else handler.stream_unary

        async def identified(requests: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            await admit(context)
            serving = serve(requests, context)
            if not isasyncgen(serving):
                return await serving
            async for response in serving:
                await context.write(response)
            return None

        new_handler: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        made: _Handler = new_handler(identified, handler.request_deserializer, handler.response_serializer)
        return made

    def _record(self, error: ServiceError, method: str, context: aio.ServicerContext[Any, Any]) -> None:
        if error.reason in DENIALS:
            self._audit.denied(CallSource("grpc", address_of(context.peer()), method), CALLER.get(None), error)


def _refusal(
    error: ServiceError, record: Callable[[aio.ServicerContext[Any, Any]], None]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return a handler of streams: gRPC reads the message of a unary call before its handler runs."""

    async def refuse(_: object, context: aio.ServicerContext[Any, Any]) -> None:
        record(context)
        await context.abort(CODES[error.reason], error.message, to_trailers(error))

    return grpc.stream_stream_rpc_method_handler(refuse)
