# Made from _async/connection.py by client/unasync.py: change that one.
"""The connection to the server: how calls are made over it."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from lavant.client._arguments import duration
from lavant.client._backoff import Backoff
from lavant.client._errors import LavantError, Unavailable
from lavant.client._status import is_cut
from lavant.client._sync.backlog import Backlog
from lavant.client._sync.calls import Call, Channel, Conversation, HungUp, Metadata, SentMetadata, invoke
from lavant.client._sync.channels import Channels, Lane
from lavant.client._sync.concurrency import Clock, Home, shielded
from lavant.client._sync.open_runs import OpenRuns
from lavant.client._sync.outage import Outage
from lavant.client._trace import trace_metadata
from lavant.v1.evaluation_service_pb2 import SampleRunsRequest, SampleRunsResponse
from lavant.v1.event_service_pb2 import (
    PublishEventsRequest,
    PublishEventsResponse,
    StreamEventsRequest,
    StreamEventsResponse,
)
from lavant.v1.run_service_pb2 import (
    CreateRunRequest,
    WaitRunRequest,
    WaitRunResponse,
    WatchRunsRequest,
    WatchRunsResponse,
)

if TYPE_CHECKING:
    from lavant.client._sync.calls import UnaryMethod

_log = logging.getLogger("lavant.client")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CLOSING = 2.0  # seconds that a client's end waits for what its runs have not sent
UNANSWERED = 10.0  # seconds behind its time: no answer comes then, and the connection is dead


class Connection:
    """Channels, what every call carries, and the time that calls live by."""

    def __init__(
        self,
        new_channel: Callable[[], Channel],
        *,
        metadata: Metadata = (),
        timeout: float = 30.0,
        clock: Clock | None = None,
        new_backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.timeout = timeout
        self.clock = clock or Clock()
        self.new_backoff = new_backoff
        self._own_metadata = _checked(metadata)
        self._channels = Channels(new_channel)
        self.outage = Outage(self.clock.monotonic)
        self.backlog = Backlog(self.outage)
        self.open_runs = OpenRuns(self)
        self._logged: set[str] = set()

    def log_once(self, message: str) -> None:
        """Log a warning that this connection has not logged yet."""
        if message not in self._logged:
            self._logged.add(message)
            _log.warning("%s", message)

    def home(self) -> Home:
        """Return where calls are made. Raises RuntimeError in another event loop, LavantError once closed."""
        try:
            return self._channels.home()
        except HungUp:
            raise LavantError("the client is closed") from None

    def current_home(self) -> Home | None:
        """Return where calls are made; None before the first one."""
        return self._channels.current_home()

    def redial(self) -> None:
        """Make further calls over new connections, which are tried at once."""
        self._channels.redial()

    def close(self) -> None:
        """End the runs that are open, within two seconds; then close the channels: calls under way are cancelled."""
        if self._channels.is_used or self.open_runs:
            self._channels.home()
            shielded(self._close, 2 * CLOSING)
        self._channels.close()

    def _close(self) -> None:
        try:
            self.open_runs.finish(CLOSING, "the client was closed")
        finally:
            self.open_runs.hang_up()
            self.outage.close()
            self._channels.close()
            self.open_runs.close()

    def stream_events(self, request: StreamEventsRequest) -> Call[StreamEventsResponse]:
        """Open a stream of events."""
        lane = self._channels.lane()
        return Call(lambda: lane.events.StreamEvents(request, metadata=self._metadata()), self.clock, lane)

    def watch_runs(self, request: WatchRunsRequest) -> Call[WatchRunsResponse]:
        """Open a stream of runs."""
        lane = self._channels.lane()
        return Call(lambda: lane.runs.WatchRuns(request, metadata=self._metadata()), self.clock, lane)

    def sample_runs(self, request: SampleRunsRequest) -> Call[SampleRunsResponse]:
        """Open a stream of samples."""
        lane = self._channels.lane()
        return Call(lambda: lane.evaluation.SampleRuns(request, metadata=self._metadata()), self.clock, lane)

    def publish_events(self) -> Conversation[PublishEventsRequest, PublishEventsResponse]:
        """Begin to publish."""
        lane = self._channels.lane()
        return Conversation(lane.events.PublishEvents, self._metadata(), self.clock, lane)

    def read(self, call: Call[_Response], silence: float, limit: float | None = None) -> _Response | None:
        """Return a call's next message, or None once the call has ended with OK.

        Raises TimeoutError after `limit` seconds, and Unavailable after `silence` seconds, for no connection
        that lives is silent for so long: further calls go over another one.
        """
        try:
            return call.read(silence if limit is None else min(silence, limit))
        except TimeoutError:
            if limit is not None and limit <= silence:
                raise
            self._channels.retire(call.lane)
            raise Unavailable(f"nothing came for {silence:g} s: the connection is dead") from None

    def create_run(self, request: CreateRunRequest) -> None:
        """Create a run. Made once: raises what it fails with."""
        lane = self._channels.first()
        self._ask(lane, lane.runs.CreateRun, request, UNANSWERED)

    def wait_run(self, run_id: str, seconds: float, patience: float) -> WaitRunResponse:
        """Wait for a run's end, and `patience` seconds more for the answer. Made once: raises what it fails with."""
        self.home()
        self.open_runs.wait_created()
        lane = self._channels.lane()
        request = WaitRunRequest(run_id=run_id, timeout=duration(seconds))
        try:
            return self._ask(lane, lane.runs.WaitRun, request, patience, seconds)
        finally:
            lane.release()

    def call(
        self,
        method: "Callable[[Lane], UnaryMethod[_Request, _Response]]",
        request: _Request,
        timeout: float | None = None,
    ) -> _Response:
        """Make a call within `timeout` seconds (default: the client's), again and again while it is cut off.

        For calls that are safe to make twice: all of lavant's are. One that is not answered within a third of
        the time, or ten seconds if that is more, is made again: over another connection, or to another server.
        """
        self.open_runs.wait_created()
        allowed = self.timeout if timeout is None else timeout
        deadline = self.clock.monotonic() + allowed
        patience = max(UNANSWERED, allowed / 3)
        backoff = self.new_backoff()
        while True:
            self.home()
            lane = self._channels.first()
            left = deadline - self.clock.monotonic()
            try:
                return self._ask(lane, method(lane), request, min(patience, left))
            except LavantError as error:
                delay = backoff.next(error.retry_after)
                if not is_cut(error) or self.clock.monotonic() + delay >= deadline:
                    raise
            self.clock.sleep(delay)

    def _ask(
        self,
        lane: Lane,
        method: "UnaryMethod[_Request, _Response]",
        request: _Request,
        patience: float,
        work: float = 0.0,
    ) -> _Response:
        """Make a call once, whose answer takes the server so many seconds of work, and the way so many more."""
        try:
            response = invoke(method, request, work + patience, self._metadata())
        except HungUp:
            raise LavantError("the client is closed") from None
        except LavantError as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and error.reason is None and patience >= UNANSWERED:
                self._channels.retire(lane)
            raise
        lane.heard = True
        return response

    def _metadata(self) -> SentMetadata:
        return self._own_metadata + trace_metadata()


def _checked(metadata: Metadata) -> SentMetadata:
    for key, value in metadata:
        if not key.endswith("-bin") and not (value.isascii() and value.isprintable()):
            # The value may be a secret.
            name = "api_key" if key == "authorization" else f"metadata {key!r}"
            raise ValueError(f"{name} must be printable ASCII: no line breaks or other control characters")
    return tuple(metadata)
