"""What is said when a command cannot do its work: one line, with what to do."""

from lavant.client import (
    LavantError,
    PermissionDenied,
    QuotaExceeded,
    RuleNotFound,
    RunNotFound,
    Unauthenticated,
    Unavailable,
)
from lavant.client._target import resolve_target
from lavant.client.cli._text import one_line

FAILED = 1
USAGE = 2
INTERRUPTED = 130  # as a shell tells SIGINT
PIPE_CLOSED = 141  # and SIGPIPE

_WHAT_TO_DO: dict[type[LavantError], str] = {
    RunNotFound: "`lavant runs` lists those that exist",
    RuleNotFound: "`lavant rules list` lists those that exist",
    Unauthenticated: "give a key with --api-key or LAVANT_API_KEY",
    PermissionDenied: "give a key that allows it with --api-key or LAVANT_API_KEY",
    QuotaExceeded: "try again later",
    Unavailable: "try again",
}


def _is_silence(error: Unavailable) -> bool:
    """Tell whether nobody answered; else the error says who did."""
    return "does not speak gRPC" not in error.message and "cannot be found" not in error.message


class CommandError(Exception):
    """A command cannot do its work; the text says why, and what to do."""


def explain(error: Exception, target: str | None = None) -> str:
    """Write an error on one line; `target` is the server that the command was given."""
    if isinstance(error, Unavailable) and error.reason is None and _is_silence(error):
        return (
            f"lavant: no server answers at {resolve_target(target)}: "
            "start one with `lavant serve`, or name another with --target or LAVANT_TARGET"
        )
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"lavant: {error.filename or 'output'}: {error.strerror}")
    advice = next((text for kind, text in _WHAT_TO_DO.items() if isinstance(error, kind)), "")
    return one_line(f"lavant: {error}: {advice}" if advice else f"lavant: {error}")
