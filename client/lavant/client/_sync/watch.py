# Made from _async/watch.py by client/unasync.py: change that one.
"""Watching runs come, change and end."""

from collections.abc import Iterator

from lavant.client._errors import LavantError, StreamCut, Unavailable
from lavant.client._models import Run
from lavant.client._sync.calls import HungUp
from lavant.client._sync.connection import Connection
from lavant.client._sync.reconnect import Reconnect
from lavant.v1.run_service_pb2 import RunFilter, WatchRunsRequest

RECONNECT_TIMEOUT = 60.0
SILENCE = 45.0  # seconds: three of the server's signs of life


def watch_runs(connection: Connection, matching: RunFilter, resume_token: str) -> Iterator[Run]:
    """Give the runs that match, then each change of state, over as many calls as it takes; never ends by itself."""
    reconnect = Reconnect(connection.new_backoff(), connection.clock, patience=RECONNECT_TIMEOUT)
    while True:
        error: LavantError = Unavailable("the watch ended")
        try:
            connection.open_runs.wait_created()
            call = connection.watch_runs(WatchRunsRequest(filter=matching, resume_token=resume_token))
            try:
                while (frame := connection.read(call, SILENCE, reconnect.left())) is not None:
                    reconnect.progress()
                    for run in frame.runs:
                        yield Run.from_proto(run)
                    resume_token = frame.resume_token
            finally:
                call.cancel()
        except HungUp:
            raise StreamCut("the client is closed") from None
        except TimeoutError:
            error = Unavailable("the server did not answer")
        except LavantError as failure:
            error = failure
        reconnect.pause(error)
