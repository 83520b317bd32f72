"""What a server tells of itself: metrics for Prometheus, and spans for OpenTelemetry."""
