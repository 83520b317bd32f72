# Generated from _async/transport.py by client/unasync.py: change that file instead.
"""Channels to a server, calls over them, and their retries."""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import grpc

from lavant.client._sync.appends import Appends
from lavant.client._sync.authorization import Authorization
from lavant.client._sync.backlog import Backlog, OpenRuns, Outage
from lavant.client._sync.calls import Call, CallEnded, Channel, Conversation, Metadata, SentMetadata, invoke
from lavant.client._sync.concurrency import Clock, Lock, Runtime, shielded
from lavant.client._wire.arguments import duration
from lavant.client._wire.status import Backoff, is_cut
from lavant.client._wire.trace import trace_metadata
from lavant.client.errors import LavantError, Unavailable
from lavant.v1.access_service_pb2_grpc import AccessServiceStub
from lavant.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from lavant.v1.event_service_pb2 import (
    AppendEventsRequest,
    BatchReceipt,
    ProducerBatch,
    PublishEventsRequest,
    PublishEventsResponse,
)
from lavant.v1.event_service_pb2_grpc import EventServiceStub
from lavant.v1.rule_service_pb2_grpc import RuleServiceStub
from lavant.v1.run_service_pb2 import (
    WaitRunRequest,
    WaitRunResponse,
)
from lavant.v1.run_service_pb2_grpc import RunServiceStub
from lavant.v1.score_service_pb2_grpc import ScoreServiceStub

if TYPE_CHECKING:
    from lavant.client._sync.calls import StreamMethod, UnaryMethod


# Servers and proxies take a limited number of calls over one connection, often 100, and gRPC lets further ones wait
# unseen. Single calls, which all go over the first channel, need room beside those that stay open.
LONG_CALLS_PER_CHANNEL = 80


class ServiceStubs:
    """One channel with its stubs, and the number of long calls on it.

    `has_received` is whether anything was received over it. Before that, gRPC itself bounds the time of connecting.
    """

    def __init__(self, channel: Channel, lock: Lock) -> None:
        self.channel = channel
        self.runs = RunServiceStub(channel)
        self.events = EventServiceStub(channel)
        self.rules = RuleServiceStub(channel)
        self.evaluation = EvaluationServiceStub(channel)
        self.scores = ScoreServiceStub(channel)
        self.access = AccessServiceStub(channel)
        self.has_received = False
        self._lock = lock
        self._calls = 0

    def take(self) -> bool:
        """Count a long call, unless the channel is full. Return whether it was counted; `release` it at its end."""
        if self._calls >= LONG_CALLS_PER_CHANNEL:
            return False
        self._calls += 1
        return True

    def release(self) -> None:
        """Count the end of a long call."""
        with self._lock:
            self._calls -= 1


class Channels:
    """Channels to one server, opened as needed and kept until all are closed.

    A channel whose connection seems dead makes no more calls, and closes with its last one. Channels belong to the
    event loop of the first call; when it is closed, to that of the next call.
    """

    def __init__(self, new_channel: Callable[[], Channel]) -> None:
        self._new_channel = new_channel
        self._lock = Lock()
        self._opened: list[ServiceStubs] = []
        self._retired: WeakSet[ServiceStubs] = WeakSet()
        self._runtime: Runtime | None = None
        self._closed = False

    @property
    def is_used(self) -> bool:
        """Whether there may be open channels."""
        return not self._closed and self._runtime is not None and not self._runtime.is_closed

    def current_runtime(self) -> Runtime | None:
        """Return the runtime of all calls; None before the first one."""
        return self._runtime

    def runtime(self) -> Runtime:
        """Return the runtime of all calls. Raises RuntimeError in another one, CallEnded when closed."""
        with self._lock:
            if self._closed:
                raise CallEnded
            if self._runtime is None or self._runtime.is_closed:
                self._opened = []
                self._runtime = Runtime()
        self._runtime.check()
        return self._runtime

    def first(self) -> ServiceStubs:
        """Return the stubs of short calls. Raises like `runtime`."""
        self.runtime()
        with self._lock:
            return self._opened[0] if self._opened else self._open()

    def stubs(self) -> ServiceStubs:
        """Return the stubs for a long call, already counted. Raises like `runtime`."""
        self.runtime()
        with self._lock:
            for stubs in self._opened:
                if stubs.take():
                    return stubs
            stubs = self._open()
            stubs.take()
            return stubs

    def retire(self, stubs: ServiceStubs) -> None:
        """Make no more calls over a connection that fell silent. May be called again."""
        with self._lock:
            if stubs.has_received and stubs in self._opened:
                self._retired.add(stubs)
                self._opened = [other for other in self._opened if other is not stubs]

    def replace(self) -> None:
        """Use new connections, which connect at once; old ones would wait before they try again."""
        with self._lock:
            self._retired.update(self._opened)
            self._opened = []

    def close(self) -> None:
        """Close all channels. Calls under way are cancelled, and no more are made."""
        is_used, self._closed = self.is_used, True
        if is_used:
            for stubs in [*self._opened, *self._retired]:
                stubs.channel.close()

    def _open(self) -> ServiceStubs:
        stubs = ServiceStubs(self._new_channel(), self._lock)
        self._opened.append(stubs)
        return stubs


_log = logging.getLogger("lavant.client")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CLOSING = 2.0  # seconds to deliver unsent events when a client is closed
UNANSWERED = 10.0  # seconds after which a call without an answer means that the connection is dead


class Connection:
    """Calls of a client: their channels, metadata, time limits and retries."""

    def __init__(
        self,
        new_channel: Callable[[], Channel],
        *,
        authorization: Authorization | None = None,
        metadata: Metadata = (),
        timeout: float = 30.0,
        clock: Clock | None = None,
        new_backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.timeout = timeout
        self.clock = clock or Clock()
        self.new_backoff = new_backoff
        self._authorization = authorization or Authorization()
        self._own_metadata = checked_metadata(metadata)
        self._channels = Channels(new_channel)
        self.appends = Appends(self)
        self.outage = Outage(self.clock.monotonic)
        self.backlog = Backlog(self.outage)
        self.open_runs = OpenRuns(self)
        self._logged: set[str] = set()

    def log_once(self, message: str) -> None:
        """Log a warning that this connection has not logged yet."""
        if message not in self._logged:
            self._logged.add(message)
            _log.warning("%s", message)

    def runtime(self) -> Runtime:
        """Return the runtime of all calls. Raises RuntimeError in another event loop, LavantError when closed."""
        try:
            return self._channels.runtime()
        except CallEnded:
            raise LavantError("the client is closed") from None

    def current_runtime(self) -> Runtime | None:
        """Return the runtime of all calls; None before the first one."""
        return self._channels.current_runtime()

    def replace_channels(self) -> None:
        """Use new connections for further calls, which connect at once."""
        self._channels.replace()

    def close(self) -> None:
        """End open runs, within two seconds; then close the channels, which cancels calls under way."""
        if self._channels.is_used or self.open_runs:
            self._channels.runtime()
            shielded(self._close, 2 * CLOSING)
        self._channels.close()

    def _close(self) -> None:
        try:
            self.open_runs.finish(CLOSING, "the client was closed")
        finally:
            self.open_runs.abort()
            self.outage.close()
            self._channels.close()
            self.open_runs.close()

    def open(
        self, method: "Callable[[ServiceStubs], StreamMethod[_Request, _Response]]", request: _Request
    ) -> Call[_Response]:
        """Open a stream. Raises Unavailable if no token can be obtained."""
        metadata = self._metadata()
        stubs = self._channels.stubs()
        call: Call[_Response] = Call(lambda: method(stubs)(request, metadata=metadata), self.clock, stubs)
        call.metadata = metadata
        return call

    def publish_events(self) -> Conversation[PublishEventsRequest, PublishEventsResponse]:
        """Open a call that publishes. Raises Unavailable if no token can be obtained."""
        metadata = self._metadata()
        stubs = self._channels.stubs()
        call = Conversation(stubs.events.PublishEvents, metadata, self.clock, stubs)
        call.metadata = metadata
        return call

    def read(self, call: Call[_Response], silence: float, limit: float | None = None) -> _Response | None:
        """Return a call's next message, or None after the call has ended with OK.

        Raises TimeoutError after `limit` seconds. Raises Unavailable after `silence` seconds, because no live
        connection is silent for that long: further calls use another one.
        """
        try:
            message = call.read(silence if limit is None else min(silence, limit))
        except LavantError as error:
            raise self._authorization.explain(error, call.metadata) from None
        except TimeoutError:
            if limit is not None and limit <= silence:
                raise
            self._channels.retire(call.stubs)
            raise Unavailable(f"nothing came for {silence:g} s: the connection is dead") from None
        self._authorization.accepted(call.metadata)
        return message

    def append_alone(self, batch: ProducerBatch) -> BatchReceipt:
        """Append a batch by a call of its own, in one attempt. Return its receipt."""
        stubs = self._channels.first()
        return (self._ask(stubs, stubs.events.AppendEvents, AppendEventsRequest(batch=batch), UNANSWERED)).receipt

    def wait_run(self, run_id: str, seconds: float, patience: float) -> WaitRunResponse:
        """Wait for a run's end, and `patience` seconds more for the answer, in one attempt."""
        self.runtime()
        self.open_runs.wait_created(run_id)
        stubs = self._channels.stubs()
        request = WaitRunRequest(run_id=run_id, timeout=duration(seconds))
        try:
            return self._ask(stubs, stubs.runs.WaitRun, request, patience, seconds)
        finally:
            stubs.release()

    def call(
        self,
        method: "Callable[[ServiceStubs], UnaryMethod[_Request, _Response]]",
        request: _Request,
        timeout: float | None = None,
    ) -> _Response:
        """Make a call within `timeout` seconds (default: the client's), with retries after cuts.

        Only for calls that may be repeated, as all of lavant's. An attempt without an answer within a third of the
        time, or ten seconds if that is more, is repeated over another connection, which may lead to another server.
        """
        self.open_runs.wait_created(getattr(request, "run_id", ""))
        allowed = self.timeout if timeout is None else timeout
        deadline = self.clock.monotonic() + allowed
        patience = max(UNANSWERED, allowed / 3)
        backoff = self.new_backoff()
        cause: LavantError | None = None
        while True:
            self.runtime()
            stubs = self._channels.first()
            left = deadline - self.clock.monotonic()
            try:
                return self._ask(stubs, method(stubs), request, min(patience, left))
            except LavantError as error:
                delay = backoff.next(error.retry_after)
                if error.reason is not None or error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    cause = error
                if not is_cut(error) or self.clock.monotonic() + delay >= deadline:
                    # The last attempt may have had no time to fail in the way of those before it.
                    raise cause or error from None
            self.clock.sleep(delay)

    def pages(
        self, method: "Callable[[ServiceStubs], UnaryMethod[_Request, _Response]]", request: Any
    ) -> Iterator[_Response]:
        """Yield the pages of a list, from the first to the last.

        Raises LavantError if a page continues at its own position: such a list would never end.
        """
        while True:
            response: Any = self.call(method, request)
            yield response
            if not response.next_page_token:
                return
            if response.next_page_token == request.page_token:
                raise LavantError(
                    f"the server returned a page whose next_page_token is the page's own page_token, "
                    f"{request.page_token!r}: the list cannot continue; report this to the server's operator"
                )
            request.page_token = response.next_page_token

    def _ask(
        self,
        stubs: ServiceStubs,
        method: "UnaryMethod[_Request, _Response]",
        request: _Request,
        patience: float,
        work: float = 0.0,
    ) -> _Response:
        """Make one attempt, which takes the server up to `work` seconds and the way `patience` seconds more."""
        metadata = self._metadata()
        try:
            response = invoke(method, request, work + patience, metadata)
        except CallEnded:
            raise LavantError("the client is closed") from None
        except LavantError as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and error.reason is None and patience >= UNANSWERED:
                self._channels.retire(stubs)
            raise self._authorization.explain(error, metadata) from None
        stubs.has_received = True
        self._authorization.accepted(metadata)
        return response

    def _metadata(self) -> SentMetadata:
        return self._authorization.metadata() + self._own_metadata + trace_metadata()


def checked_metadata(metadata: Metadata) -> SentMetadata:
    """Return metadata that can be sent. Raises ValueError without the value, which may be a secret."""
    for key, value in metadata:
        if not key.endswith("-bin") and not (value.isascii() and value.isprintable()):
            raise ValueError(f"metadata {key!r} must be printable ASCII: no line breaks or other control characters")
    return tuple(metadata)
