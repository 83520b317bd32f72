"""OpenTelemetry's spans and log records, read as the runs, steps and messages of agents."""
