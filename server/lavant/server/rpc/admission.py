"""Admission of gRPC calls: their bounds, who calls, and whether the credential allows it, before a request is read."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from lavant.server.auth.audit import DENIALS, Audit, CallSource
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.client_authorities import CERTIFICATE, ClientAuthorities, der_of_grpc_peer
from lavant.server.auth.mtls import CertificatePrincipals, names_of_grpc_peer
from lavant.server.auth.principal import CALLER, Principal, Scope, unauthenticated
from lavant.server.errors import ServiceError, invalid_field, report_internal_error
from lavant.server.rpc.limits import HEALTH, CallLimits
from lavant.server.rpc.receiving import received
from lavant.server.rpc.status import CODES, to_trailers
from lavant.server.streaming.peers import address_of

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]
_Context: TypeAlias = aio.ServicerContext[Any, Any]
_Behaviour: TypeAlias = Callable[[Any, _Context], Any]

MAX_METADATA_BYTES = 8 << 10  # of all keys and values of a call


class CallAdmission(aio.ServerInterceptor):
    """Outermost interceptor of all services: it admits a call, or ends it before its request is read.

    A method is allowed to whoever has one of its `scopes`. One that is not among them needs valid credentials only;
    health checks need none.
    """

    def __init__(
        self,
        authenticate: Authenticate,
        scopes: Mapping[str, tuple[Scope, ...]],
        limits: CallLimits,
        audit: Audit,
        by_certificate: CertificatePrincipals | None = None,
        authorities: ClientAuthorities | None = None,
    ) -> None:
        self._authenticate = authenticate
        self._scopes = scopes
        self._limits = limits
        self._audit = audit
        self._by_certificate = by_certificate
        self._authorities = authorities
        self._admitting: dict[str, tuple[_Handler, _Handler]] = {}  # by method: its handler, and the one that admits

    async def intercept_service(
        self, continuation: _Continuation, details: grpc.HandlerCallDetails
    ) -> "_Handler | None":
        """Return a handler of the call that admits it within the bounds, or one that refuses it."""
        method: str = details.method
        try:
            self._authenticated(method, details)
        except ServiceError as error:
            return _refusal(partial(self._refuse, error, method))
        handler = await continuation(details)
        if handler is None:
            return None
        known = self._admitting.get(method)
        if known is None or known[0] is not handler:  # with tracing, each call has a handler of its own
            known = self._admitting[method] = (handler, self._admitted(method, handler))
        return known[1]

    def _authenticated(self, method: str, details: grpc.HandlerCallDetails) -> None:
        """Check the metadata of a call and note its caller, unless a certificate is to name the caller."""
        size = 0
        given: list[str] = []
        for key, value in details.invocation_metadata or ():
            size += len(key) + len(value)
            if key == "authorization":
                given.append(value if isinstance(value, str) else value.decode("latin-1"))
        if size > MAX_METADATA_BYTES:
            raise invalid_field("metadata", f"must be at most {MAX_METADATA_BYTES:,} bytes in all, not {size:,}")
        if method.startswith(HEALTH):
            return
        if len(given) > 1:
            raise unauthenticated("the call has several credentials; send one")
        if given or self._by_certificate is None:
            self._enter(self._authenticate(given[0] if given else None), method)

    def _enter(self, principal: Principal, method: str) -> None:
        CALLER.set(principal)  # before it is refused, for the audit
        scopes = self._scopes.get(method)
        if scopes:
            principal.require(*scopes)

    def _admitted(self, method: str, handler: Any) -> _Handler:
        """Return a handler that admits a call, and then calls the one of the method.

        Both are of calls with many requests: gRPC would read the request of another call before any handler runs.
        """
        limits, by_certificate, authorities = self._limits, self._by_certificate, self._authorities
        calls = limits.of_method(method)
        is_health = method.startswith(HEALTH)
        serializers = (handler.request_deserializer, handler.response_serializer)

        def admit(context: _Context) -> None:
            limits.enter(calls, context)
            if authorities is not None and not is_health:
                CERTIFICATE.set(der_of_grpc_peer(context.auth_context()))
                authorities.check(CERTIFICATE.get())
            if by_certificate is not None and not is_health and CALLER.get(None) is None:
                # gRPC shows the certificate to handlers only.
                self._enter(by_certificate(names_of_grpc_peer(context.auth_context())), method)

        if handler.response_streaming:
            write_all: _Behaviour = handler.stream_stream or self._reading_first(handler.unary_stream)

            async def stream(requests: Any, context: _Context) -> None:
                try:
                    admit(context)
                except ServiceError as error:
                    await self._refuse(error, method, context)
                try:
                    responses = write_all(requests, context)
                    if not hasattr(responses, "__aiter__"):
                        await responses
                        return
                    async for response in responses:
                        await context.write(response)
                except aio.BaseError:
                    raise
                except Exception as error:
                    await _fail(error, context)

            return grpc.stream_stream_rpc_method_handler(stream, *serializers)

        answer: _Behaviour = handler.stream_unary or self._reading_first(handler.unary_unary)

        async def unary(requests: Any, context: _Context) -> Any:
            try:
                admit(context)
            except ServiceError as error:
                await self._refuse(error, method, context)
            try:
                response = await answer(requests, context)
            except aio.BaseError:
                raise
            except Exception as error:
                await _fail(error, context)
            try:
                limits.enter_answer(response, context)
            except ServiceError as error:
                await self._refuse(error, method, context)
            return response

        return grpc.stream_unary_rpc_method_handler(unary, *serializers)

    def _reading_first(self, behaviour: _Behaviour) -> _Behaviour:
        """Return a behaviour that receives its one request itself: gRPC would wait for it without limit."""

        async def read(_: object, context: _Context) -> Any:
            try:
                request = await received(context, self._limits.receiving)
            except TimeoutError:
                request = aio.EOF
            if request is aio.EOF:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request did not arrive; send it at once")
            return await behaviour(request, context)

        return read

    async def _refuse(self, error: ServiceError, method: str, context: _Context) -> NoReturn:
        if error.reason in DENIALS:
            self._audit.denied(CallSource("grpc", address_of(context.peer()), method), CALLER.get(None), error)
        await context.abort(CODES[error.reason], error.message, to_trailers(error))


def _refusal(refuse: Callable[[_Context], Awaitable[NoReturn]]) -> _Handler:
    """Return a handler of streams, for any call: gRPC reads nothing of a stream before its handler runs."""

    async def handle(_: object, context: _Context) -> None:
        await refuse(context)

    return grpc.stream_stream_rpc_method_handler(handle)


async def _fail(error: Exception, context: _Context) -> NoReturn:
    """End the call of a service that is not lavant's own: gRPC would send the text of the exception, and log it all."""
    match error:
        case DecodeError():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is malformed")
        case NotImplementedError():
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the server does not implement this method")
        case _:
            await context.abort(grpc.StatusCode.INTERNAL, report_internal_error(error))
