"""The exit status that tells how a run ended; 1 and 2 are left to lavant's own errors."""

from lavant.client import RunState

STATUSES = {
    RunState.SUCCEEDED: 0,
    RunState.FAILED: 10,
    RunState.CANCELLED: 11,
    RunState.TIMED_OUT: 12,
    RunState.ABANDONED: 13,
}
UNKNOWN_OUTCOME = 19  # an outcome of a newer server's
TERMINATED = 143  # as a shell tells SIGTERM


def status_of(state: RunState) -> int:
    """Return the exit status for the state in which a run ended."""
    return STATUSES.get(state, UNKNOWN_OUTCOME)
