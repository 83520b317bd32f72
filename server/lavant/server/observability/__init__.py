"""Observability of a server: metrics for Prometheus, spans for OpenTelemetry."""
