"""Failures that nobody foresaw: whoever called learns a number, the log has the rest under it."""

import secrets

import structlog

_log = structlog.get_logger(__name__)


def report(error: Exception) -> str:
    """Log a failure; return what the caller may be told of it."""
    incident = secrets.token_hex(4)
    _log.error("call_failed", incident=incident, exc_info=error)
    return f"internal error; the server's log has it as {incident}"
