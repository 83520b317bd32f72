"""OTLP: spans and logs of OpenTelemetry, recorded as runs."""
