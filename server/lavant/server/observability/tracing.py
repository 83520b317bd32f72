"""Spans of calls with OpenTelemetry. Only a server that traces imports this module."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points, version
from typing import Any, TypeAlias

import grpc
from grpc import aio
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider

from lavant.server.errors import StartError
from lavant.server.metrics import Stream, StreamMetrics

_TRACED = "/lavant."  # without health checks and reflection, which would outnumber the rest
# Codes that the semantic conventions count as errors of the server, not of the caller.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# Whether a call ends with UNAVAILABLE only so that clients retry: another session of the consumer holds the lease.
_IS_BUSY = ContextVar("_IS_BUSY", default=False)
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]
_Call = aio.ServicerContext[Any, Any]
_EXPORTERS = "opentelemetry_traces_exporter"  # the group of entry points that exporters register in
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class Tracing:
    """Tracing of one server's calls, with one span per call.

    Spans go to the application's tracer provider, or else to one that the OTEL_* variables describe. They hold
    no payloads, tokens or names of users. Raises StartError if an exporter is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self.new_streams = TracedStreams
        self._own = None
        provider = provider or _application_provider()
        if provider is None:
            provider = self._own = _new_provider()
        self.interceptor = CallTracer(provider.get_tracer("lavant.server", version("lavant")))

    async def close(self) -> None:
        """Send the remaining spans, if the provider is the server's own."""
        if self._own is not None:
            await asyncio.to_thread(self._own.shutdown)


class TracedStreams(StreamMetrics):
    """Metrics of streams that also add the stages of a stream to the span of its call."""

    def opened(self, stream: Stream) -> None:
        """Count a stream whose first frame was sent."""
        super().opened(stream)
        span = trace.get_current_span()
        span.set_attribute("lavant.run.id", stream.run_id)
        span.add_event("opened")

    def caught_up(self) -> None:
        """Count a stream that sent everything recorded so far."""
        super().caught_up()
        trace.get_current_span().add_event("caught_up")

    def ended(self, reason: str) -> None:
        """Count a stream that ended or was refused."""
        super().ended(reason)
        trace.get_current_span().add_event("end", {"lavant.end.reason": reason})
        _IS_BUSY.set(reason == "CONSUMER_BUSY")


class CallTracer(aio.ServerInterceptor):
    """Interceptor that opens a span per call, as a child of the caller's span if the metadata names one."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_service(self, continuation: _Continuation, details: grpc.HandlerCallDetails) -> _Handler:
        """Wrap the handler of a call to one of lavant's own services."""
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
    """Return the name of the status that was set, as a code or a number; None if none was."""
    code: Any = call.code()
    return next((known.name for known in grpc.StatusCode if code in (known, known.value[0])), None)


def _end(span: Span, code: str) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if code in _FAULTS and not _IS_BUSY.get():
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)


def _application_provider() -> TracerProvider | None:
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def _new_provider() -> SDKTracerProvider:
    """Return a provider for OTEL_TRACES_EXPORTER (otlp, console, none) and OTEL_EXPORTER_OTLP_PROTOCOL."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "lavant"}))
    provider = SDKTracerProvider(resource=resource, shutdown_on_exit=False)
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


def _exporter(name: str) -> SpanExporter:
    installed = {found.name: found for found in entry_points(group=_EXPORTERS)}
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
    wanted = _OTLP.get(protocol, protocol) if name == "otlp" else name
    if wanted not in installed:
        needed = f"opentelemetry-exporter-{wanted.replace('_', '-')}"
        raise StartError(f"cannot export spans to {name}: install {needed}, or set OTEL_TRACES_EXPORTER")
    exporter: SpanExporter = installed[wanted].load()()
    return exporter
