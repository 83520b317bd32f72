# Made from _async/channels.py by client/unasync.py: change that one.
"""The channels to a server: as many as the calls that stay open need."""

from collections.abc import Callable
from weakref import WeakSet

from lavant.client._sync.calls import Channel
from lavant.client._sync.concurrency import Lock
from lavant.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from lavant.v1.event_service_pb2_grpc import EventServiceStub
from lavant.v1.run_service_pb2_grpc import RunServiceStub
from lavant.v1.score_service_pb2_grpc import ScoreServiceStub

# A server takes 100 calls over one connection, and gRPC lets further ones wait unseen. Single calls,
# which all go over the first channel, need room beside those that stay open.
LONG_CALLS_PER_CHANNEL = 80


class Lane:
    """One channel, its stubs, and how many long calls are under way on it.

    `heard` tells whether anything ever came over it: until then gRPC itself watches it, while it dials.
    """

    def __init__(self, channel: Channel, lock: Lock) -> None:
        self.channel = channel
        self.runs = RunServiceStub(channel)
        self.events = EventServiceStub(channel)
        self.evaluation = EvaluationServiceStub(channel)
        self.scores = ScoreServiceStub(channel)
        self.heard = False
        self._lock = lock
        self._calls = 0

    def take(self) -> bool:
        """Take a place for a long call, if there is one; give it back with `release`."""
        if self._calls >= LONG_CALLS_PER_CHANNEL:
            return False
        self._calls += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        with self._lock:
            self._calls -= 1


class Channels:
    """Channels to one server, opened as they are needed and kept until all are closed.

    All but those whose connection seems dead: such a channel makes no more calls, and closes with its last one.
    """

    def __init__(self, new_channel: Callable[[], Channel]) -> None:
        self._new_channel = new_channel
        self._lock = Lock()
        self._lanes = [Lane(new_channel(), self._lock)]
        self._retired: WeakSet[Lane] = WeakSet()

    @property
    def first(self) -> Lane:
        """The lane of the calls that are soon over."""
        return self._lanes[0]

    def lane(self) -> Lane:
        """Return a lane with a place for a long call, already taken."""
        with self._lock:
            for lane in self._lanes:
                if lane.take():
                    return lane
            lane = Lane(self._new_channel(), self._lock)
            lane.take()
            self._lanes.append(lane)
            return lane

    def retire(self, lane: Lane) -> None:
        """Make no more calls over a connection that has fallen silent. May be called again."""
        with self._lock:
            if lane.heard and lane in self._lanes:
                self._retired.add(lane)
                self._lanes = [other for other in self._lanes if other is not lane] or [
                    Lane(self._new_channel(), self._lock)
                ]

    def close(self) -> None:
        """Close them; calls under way are cancelled."""
        for lane in [*self._lanes, *self._retired]:
            lane.channel.close()
