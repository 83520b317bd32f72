"""The connection to the server: how calls are made over it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lavant.client._async.calls import Call, Channel, Conversation, HungUp, Metadata, SentMetadata, invoke
from lavant.client._async.channels import Channels
from lavant.client._async.concurrency import Clock
from lavant.client._backoff import Backoff
from lavant.client._errors import LavantError
from lavant.client._status import is_cut
from lavant.v1.event_service_pb2 import (
    PublishEventsRequest,
    PublishEventsResponse,
    StreamEventsRequest,
    StreamEventsResponse,
)
from lavant.v1.run_service_pb2 import WaitRunRequest, WaitRunResponse, WatchRunsRequest, WatchRunsResponse

if TYPE_CHECKING:
    from lavant.client._async.calls import UnaryMethod

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


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
        self._metadata = _checked(metadata)
        self._channels = Channels(new_channel)
        self.runs = self._channels.first.runs
        self.events = self._channels.first.events

    async def close(self) -> None:
        """Close the channels; calls under way are cancelled."""
        await self._channels.close()

    def stream_events(self, request: StreamEventsRequest) -> Call[StreamEventsResponse]:
        """Open a stream of events."""
        lane = self._channels.lane()
        return Call(lambda: lane.events.StreamEvents(request, metadata=self._metadata), self.clock, lane.release)

    def watch_runs(self, request: WatchRunsRequest) -> Call[WatchRunsResponse]:
        """Open a stream of runs."""
        lane = self._channels.lane()
        return Call(lambda: lane.runs.WatchRuns(request, metadata=self._metadata), self.clock, lane.release)

    def publish_events(self) -> Conversation[PublishEventsRequest, PublishEventsResponse]:
        """Begin to publish."""
        lane = self._channels.lane()
        return Conversation(lane.events.PublishEvents, self._metadata, self.clock, lane.release)

    async def wait_run(self, request: WaitRunRequest, timeout: float) -> WaitRunResponse:
        """Wait for a run's end, as long as the request says."""
        lane = self._channels.lane()
        try:
            return await self.call(lane.runs.WaitRun, request, timeout)
        finally:
            lane.release()

    async def call(
        self, method: "UnaryMethod[_Request, _Response]", request: _Request, timeout: float | None = None
    ) -> _Response:
        """Make a call within `timeout` seconds (default: the client's), again and again while it is cut off.

        For calls that are safe to make twice: all of lavant's are.
        """
        deadline = self.clock.monotonic() + (self.timeout if timeout is None else timeout)
        backoff = self.new_backoff()
        while True:
            try:
                return await invoke(method, request, deadline - self.clock.monotonic(), self._metadata)
            except HungUp:
                raise LavantError("the client is closed") from None
            except LavantError as error:
                delay = backoff.next(error.retry_after)
                if not is_cut(error) or self.clock.monotonic() + delay >= deadline:
                    raise
            await self.clock.sleep(delay)


def _checked(metadata: Metadata) -> SentMetadata:
    for key, value in metadata:
        if not key.endswith("-bin") and not (value.isascii() and value.isprintable()):
            # The value may be a secret.
            name = "api_key" if key == "authorization" else f"metadata {key!r}"
            raise ValueError(f"{name} must be printable ASCII: no line breaks or other control characters")
    return tuple(metadata)
