"""Bounds of gRPC calls and of answers that wait for their readers, in all and per address."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc import aio

from lavant.server.errors import ServiceError
from lavant.server.rpc.receiving import TURNS, ReceivingTurns, received
from lavant.server.rpc.status import CODES, to_trailers
from lavant.server.streaming.peers import PEER, PeerLimit, address_of

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]
_Context: TypeAlias = aio.ServicerContext[Any, Any]
_Behaviour: TypeAlias = Callable[[Any, _Context], Any]

HEALTH = "/grpc.health.v1.Health/"  # answers load balancers, which have no credentials
_HEALTH_CALLS = 1_000
_ARRIVING = 64  # requests of up to 4 MiB that are received at a time
_ANSWER_BYTES = 256 << 20
_SMALL = 16 << 10  # bytes of an answer: about what gRPC keeps of a call in any case


class CallLimits(aio.ServerInterceptor):
    """Bounds the calls of all services, in all and per address, from their start until gRPC has done with them.

    A call of which the answer waits for a reader that does not read is not done. Health checks have a bound of their
    own, so that they are answered when there are too many other calls.
    """

    def __init__(self, calls: int, share: float) -> None:
        self._calls = PeerLimit(calls, share, "calls", "calls are open")
        self._health = PeerLimit(_HEALTH_CALLS, share, "health_checks", "health checks are open")
        self._answers = PeerLimit(_ANSWER_BYTES, share, "answer_bytes", "bytes of answers wait for their readers")
        self._turns = ReceivingTurns(_ARRIVING, share)
        self._bounded: dict[str, tuple[_Handler, _Handler]] = {}

    async def intercept_service(
        self, continuation: _Continuation, details: grpc.HandlerCallDetails
    ) -> "_Handler | None":
        """Return the handler of a method, within the bounds."""
        handler = await continuation(details)
        if handler is None:
            return None
        TURNS.set(self._turns)
        method: str = details.method
        known = self._bounded.get(method)
        if known is None or known[0] is not handler:
            known = self._bounded[method] = (handler, self._bound(method, handler))
        return known[1]

    def _bound(self, method: str, handler: Any) -> _Handler:
        limit = self._health if method.startswith(HEALTH) else self._calls
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            behaviour: _Behaviour = handler.stream_stream or _read_first(handler.unary_stream)

            async def stream(requests: Any, context: _Context) -> None:
                await self._enter(limit, context)
                responses = behaviour(requests, context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async for response in responses:
                    await context.write(response)

            return grpc.stream_stream_rpc_method_handler(stream, *serializers)
        answering: _Behaviour = handler.stream_unary or _read_first(handler.unary_unary)

        async def answer(requests: Any, context: _Context) -> Any:
            await self._enter(limit, context)
            response = await answering(requests, context)
            if isinstance(response, bytes) and len(response) > _SMALL:
                await self._enter(self._answers, context, len(response))
            return response

        return grpc.stream_unary_rpc_method_handler(answer, *serializers)

    async def _enter(self, limit: PeerLimit, context: _Context, amount: int = 1) -> None:
        address = address_of(context.peer())
        PEER.set(address)
        try:
            limit.enter(address, amount)
        except ServiceError as error:
            await context.abort(CODES[error.reason], error.message, to_trailers(error))
        context.add_done_callback(lambda _: limit.leave(address, amount))  # type: ignore[arg-type]  # not typed as called


def _read_first(behaviour: _Behaviour) -> _Behaviour:
    """Return a behaviour that receives its one request itself: gRPC would wait for it without limit before the call."""

    async def read(_: object, context: _Context) -> Any:
        try:
            request = await received(context)
        except TimeoutError:
            request = aio.EOF
        if request is aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request did not arrive; send it at once")
        return await behaviour(request, context)

    return read
