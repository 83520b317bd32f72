"""Spans of calls. Importing this imports OpenTelemetry: only a server that traces does so."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeAlias

import grpc
from grpc import aio
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider

from lavant.server.measures import Stream, StreamMeasures
from lavant.server.observability.exporting import global_provider, own_provider

_TRACED = "/lavant."  # health checks and reflection would drown the rest
# The codes that the conventions count as a server's faults; the others are the caller's, or nobody's.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]
_Call = aio.ServicerContext[Any, Any]


class Tracing:
    """Traces one server's calls, each with one span for as long as it lasts.

    Spans go to the application's tracer provider, or to one of the server's own that OTEL_* variables
    describe. They hold no payloads, tokens or names of users. Raises StartError if there is no exporter.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self.new_streams = TracedStreams
        self._own = None
        provider = provider or global_provider()
        if provider is None:
            provider = self._own = own_provider()
        self.interceptor = CallTracer(provider.get_tracer("lavant.server", version("lavant")))

    async def close(self) -> None:
        """Send what is left, if the provider is the server's own."""
        if self._own is not None:
            await asyncio.to_thread(self._own.shutdown)


class TracedStreams(StreamMeasures):
    """Tells the span of a stream's call how the stream goes."""

    def opened(self, stream: Stream) -> None:
        """The first frame was sent."""
        super().opened(stream)
        span = trace.get_current_span()
        span.set_attribute("lavant.run.id", stream.run_id)
        span.add_event("opened")

    def caught_up(self) -> None:
        """All that was recorded was sent."""
        super().caught_up()
        trace.get_current_span().add_event("caught_up")

    def ended(self, reason: str) -> None:
        """A stream ended, or was refused."""
        super().ended(reason)
        trace.get_current_span().add_event("end", {"lavant.end.reason": reason})


class CallTracer(aio.ServerInterceptor):
    """Gives every call a span, the child of the caller's if there is one in the metadata."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> _Handler:
        """Wrap the method that is called; only those of lavant's own services."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_TRACED):
            return handler
        serve: Any = handler.stream_unary or handler.stream_stream

        async def traced(request: Any, call: _Call) -> Any:
            with self._span(details, call):
                return await serve(request, call)

        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(traced)
        return grpc.stream_stream_rpc_method_handler(traced)

    @contextmanager
    def _span(self, details: grpc.HandlerCallDetails, call: _Call) -> Iterator[None]:
        carrier = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        method = details.method.removeprefix("/")
        with self._tracer.start_as_current_span(
            method,
            context=propagate.extract(carrier, context=Context()),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except asyncio.CancelledError:
                remaining = call.time_remaining()
                _end(span, "CANCELLED" if remaining is None or remaining > 0 else "DEADLINE_EXCEEDED")
                raise
            except BaseException:
                _end(span, _code(call) or "UNKNOWN")
                raise
            else:
                _end(span, _code(call) or "OK")


def _code(call: _Call) -> str | None:
    """The name of the status that was set, as a number or as such; None: none was."""
    code: Any = call.code()
    return next((known.name for known in grpc.StatusCode if code in (known, known.value[0])), None)


def _end(span: Span, code: str) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if code in _FAULTS:
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)
