"""A server process: settings, logs, composition, lifecycle and maintenance."""
