# Made from _async/wait.py by client/unasync.py: change that one.
"""Waiting for a run's end."""

from lavant.client._errors import LavantError, WaitTimeout
from lavant.client._models import Run
from lavant.client._sync.connection import UNANSWERED, Connection
from lavant.client._sync.reconnect import Reconnect

LONGEST_WAIT = 50.0
ANSWER_MARGIN = 0.25  # seconds that the last answer may take to come


def wait_for_end(connection: Connection, run_id: str, timeout: float | None) -> Run:
    """Poll until a run has ended.

    Raises WaitTimeout after `timeout` seconds, and Unavailable where the server was out of reach for
    as long as the client's own timeout.
    """
    clock = connection.clock
    deadline = float("inf") if timeout is None else clock.monotonic() + timeout
    reconnect = _new_reconnect(connection)
    known = "has not ended"
    while True:
        left = max(0.0, deadline - clock.monotonic())
        asked = min(LONGEST_WAIT, left)
        error: LavantError | None = None
        try:
            response = connection.wait_run(run_id, asked, min(UNANSWERED, left - asked + ANSWER_MARGIN))
        except LavantError as failure:
            error = failure
        else:
            run = Run.from_proto(response.run)
            if run.has_ended:
                return run
            known = f"is {run.state.value}"
            reconnect = _new_reconnect(connection)
        left = deadline - clock.monotonic()
        if error is not None:
            reconnect.pause(error, max(0.0, left))
            known = f"may have ended: the server is out of reach ({error.message}),"
        if left <= 0:
            raise WaitTimeout(f"run {run_id} {known} after {timeout:g} s") from error


def _new_reconnect(connection: Connection) -> Reconnect:
    return Reconnect(connection.new_backoff(), connection.clock, patience=connection.timeout)
