"""When the blocking client calls again: on gRPC's testing channel, with a clock that the test moves."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

import grpc
import grpc_testing
import pytest

from lavant.client import IdleTimeout, LavantError, RunStream, StreamCut, StreamDisplaced, StreamTimeout
from lavant.client._sync.alarms import Alarm
from lavant.client._sync.api.runs import Runs
from lavant.client._sync.concurrency import Clock
from lavant.client._sync.transport import Connection
from lavant.client._wire.status import Backoff
from lavant.contract.status import STATUS_DETAILS_KEY
from lavant.v1 import event_service_pb2 as pb
from support.scripted import end, events, opened, status

METHOD = pb.DESCRIPTOR.services_by_name["EventService"].methods_by_name["StreamEvents"]
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


class TestedClock(Clock):
    """Clock that stands still until `advance`. Reports who begins to sleep or to read, and for how long at most."""

    __test__ = False

    def __init__(self) -> None:
        self._time = grpc_testing.strict_fake_time(0.0)
        self.naps: Queue[float] = Queue()
        self.reads: Queue[float] = Queue()

    def monotonic(self) -> float:
        return float(self._time.time())

    def sleep(self, seconds: float) -> None:
        over = threading.Event()
        self._time.call_in(over.set, seconds)
        self.naps.put(seconds)
        over.wait()

    def call_in(self, seconds: float, action: Callable[[], None]) -> Alarm:
        alarm = Alarm(action)
        self._time.call_in(lambda: alarm.action and alarm.action(), seconds)
        self.reads.put(seconds)
        return alarm

    def advance(self, seconds: float) -> None:
        self._time.sleep_for(seconds)


def new_backoff() -> Backoff:
    """Delays of 1, 2, 4, 8 and 8 seconds, without their randomness."""
    return Backoff(initial=1.0, maximum=8.0, uniform=lambda _, high: high)


class Scene:
    """A stream that is read in a thread, and the server's side of its calls."""

    def __init__(self, **settings: object) -> None:
        self.clock = TestedClock()
        self._channel = grpc_testing.channel(pb.DESCRIPTOR.services_by_name.values(), self.clock._time)
        connection = Connection(lambda: self._channel, clock=self.clock, new_backoff=new_backoff)
        self.stream: RunStream = Runs(connection).stream("r", consumer="ui", **settings)  # type: ignore[arg-type]
        self.seen: list[int] = []
        self.error: LavantError | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for event in self.stream:
                self.seen.append(event.sequence)
        except LavantError as error:
            self.error = error

    def call(self) -> tuple[pb.StreamEventsRequest, "grpc_testing.UnaryStreamChannelRpc"]:
        """Take the client's next call."""
        _, request, call = self._channel.take_unary_stream(METHOD)
        return request, call

    def nap(self, seconds: float) -> None:
        """See the client sleep for exactly so long, and let the time pass."""
        assert self.clock.naps.get(timeout=10) == seconds
        self.clock.advance(seconds)

    def await_read(self, count: int) -> None:
        """See the client begin to wait for its frame number so many."""
        for _ in range(count):
            self.clock.reads.get(timeout=10)

    def join(self) -> None:
        """Wait until the reader has read all."""
        self._reader.join(10)
        assert not self._reader.is_alive()


@contextmanager
def scene(**settings: object) -> Iterator[Scene]:
    acted = Scene(**settings)
    yield acted
    acted.join()
    assert acted.clock.naps.empty()


# What was sent and not yet read is lost when this channel's call is cut: so wait for the reader first.
def cut(call: "grpc_testing.UnaryStreamChannelRpc", code: grpc.StatusCode = UNAVAILABLE, text: str = "gone") -> None:
    call.terminate((), code, text)


def finish(acted: Scene) -> pb.StreamEventsRequest:
    request, call = acted.call()
    call.send_response(events(9, last=True))
    call.send_response(end(pb.STREAM_END_REASON_RUN_FINISHED))
    call.terminate((), OK, "")
    return request


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (UNAVAILABLE, "gone"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.CANCELLED, "by a proxy"),
        (OK, ""),
    ],
)
def test_a_cut_is_resumed_behind_the_last_event(code: grpc.StatusCode, text: str) -> None:
    with scene() as acted:
        first, call = acted.call()
        call.send_response(opened())
        call.send_response(events(1, 2))
        acted.await_read(3)
        cut(call, code, text)
        acted.nap(1.0)
        second = finish(acted)
    assert acted.seen == [1, 2, 9]
    assert acted.error is None
    assert second.resume_token == "t2"
    assert (first.session_id, first.attempt, second.attempt) == (second.session_id, 1, 2)


def test_delays_grow_until_there_is_progress() -> None:
    with scene() as acted:
        for delay in (1.0, 2.0, 4.0, 8.0, 8.0):
            cut(acted.call()[1])
            acted.nap(delay)
        _, call = acted.call()
        call.send_response(opened())
        call.send_response(events(1))
        acted.await_read(8)
        cut(call)
        acted.nap(1.0)
        finish(acted)


def test_a_planned_end_is_renewed_without_a_wait() -> None:
    with scene() as acted:
        _, call = acted.call()
        call.send_response(opened())
        call.send_response(events(1))
        call.send_response(end(pb.STREAM_END_REASON_DEADLINE, reconnect=True))
        call.terminate((), OK, "")
        finish(acted)
    assert acted.seen == [1, 9]


def test_silence_for_three_heartbeats_is_a_cut() -> None:
    with scene(heartbeat_interval=2.0) as acted:
        _, call = acted.call()
        call.send_response(opened(heartbeat_ms=2_000))
        call.send_response(events(1))
        acted.await_read(3)
        acted.clock.advance(6.0)
        acted.nap(1.0)
        finish(acted)
    assert acted.seen == [1, 9]


def test_displacement_is_final() -> None:
    with scene() as acted:
        _, call = acted.call()
        call.send_response(opened())
        refusal = status(grpc.StatusCode.ABORTED, "STREAM_DISPLACED")
        call.terminate(((STATUS_DETAILS_KEY, refusal.SerializeToString()),), grpc.StatusCode.ABORTED, "said")
    assert isinstance(acted.error, StreamDisplaced)


def test_it_gives_up_in_time() -> None:
    with scene(reconnect_timeout=5.0) as acted:
        _, call = acted.call()
        call.send_response(opened())
        acted.await_read(2)
        cut(call)
        for delay in (1.0, 2.0, 2.0):
            acted.nap(delay)
            cut(acted.call()[1])
    assert isinstance(acted.error, StreamCut)


@pytest.mark.parametrize(("limit", "error"), [("timeout", StreamTimeout), ("idle_timeout", IdleTimeout)])
def test_a_streams_own_limits(limit: str, error: type[LavantError]) -> None:
    with scene(**{limit: 3.0}) as acted:
        _, call = acted.call()
        call.send_response(opened())
        acted.await_read(2)
        acted.clock.advance(3.0)
    assert isinstance(acted.error, error)
