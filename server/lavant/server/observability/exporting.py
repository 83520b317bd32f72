"""Where spans go: to the application's provider, or where OTEL_* variables say."""

import os
from importlib.metadata import entry_points

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from lavant.server.errors import StartError

_GROUP = "opentelemetry_traces_exporter"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def global_provider() -> trace.TracerProvider | None:
    """The tracer provider that the application has set, if it has."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


def own_provider() -> TracerProvider:
    """A provider as OpenTelemetry's variables describe it; the caller shuts it down.

    OTEL_TRACES_EXPORTER names the exporter (otlp, console, none), OTEL_EXPORTER_OTLP_PROTOCOL the protocol of
    otlp. Raises StartError if there is no such exporter.
    """
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "lavant"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


def _exporter(name: str) -> SpanExporter:
    installed = {found.name: found for found in entry_points(group=_GROUP)}
    protocol = _protocol()
    wanted = _OTLP.get(protocol, protocol) if name == "otlp" else name
    if wanted not in installed:
        needed = f"opentelemetry-exporter-{wanted.replace('_', '-')}"
        raise StartError(f"spans cannot be exported to {name}: install {needed}, or set OTEL_TRACES_EXPORTER")
    exporter: SpanExporter = installed[wanted].load()()
    return exporter


def _protocol() -> str:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
