# Made from _async/channels.py by client/unasync.py: change that one.
"""The channels to a server: as many as the calls that stay open need."""

from collections.abc import Callable
from weakref import WeakSet

from lavant.client._sync.calls import Channel, HungUp
from lavant.client._sync.concurrency import Home, Lock
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
    Channels belong to where the first call is made; once that is gone, to where the next one is.
    """

    def __init__(self, new_channel: Callable[[], Channel]) -> None:
        self._new_channel = new_channel
        self._lock = Lock()
        self._lanes: list[Lane] = []
        self._retired: WeakSet[Lane] = WeakSet()
        self._home: Home | None = None
        self._closed = False

    @property
    def is_used(self) -> bool:
        """Whether there may be open channels."""
        return not self._closed and self._home is not None and not self._home.is_gone

    def current_home(self) -> Home | None:
        """Return where calls are made; None before the first one."""
        return self._home

    def home(self) -> Home:
        """Return where calls are made. Raises RuntimeError where they cannot be made from here, HungUp once closed."""
        with self._lock:
            if self._closed:
                raise HungUp
            if self._home is None or self._home.is_gone:
                self._lanes = []
                self._home = Home()
        self._home.check()
        return self._home

    def first(self) -> Lane:
        """Return the lane of the calls that are soon over. Raises as `home` does."""
        self.home()
        with self._lock:
            return self._lanes[0] if self._lanes else self._open()

    def lane(self) -> Lane:
        """Return a lane with a place for a long call, already taken. Raises as `home` does."""
        self.home()
        with self._lock:
            for lane in self._lanes:
                if lane.take():
                    return lane
            lane = self._open()
            lane.take()
            return lane

    def retire(self, lane: Lane) -> None:
        """Make no more calls over a connection that has fallen silent. May be called again."""
        with self._lock:
            if lane.heard and lane in self._lanes:
                self._retired.add(lane)
                self._lanes = [other for other in self._lanes if other is not lane]

    def redial(self) -> None:
        """Make further calls over new connections, which are tried at once: the old ones wait before they try again."""
        with self._lock:
            self._retired.update(self._lanes)
            self._lanes = []

    def close(self) -> None:
        """Close them; calls under way are cancelled, and no more are made."""
        is_used, self._closed = self.is_used, True
        if is_used:
            for lane in [*self._lanes, *self._retired]:
                lane.channel.close()

    def _open(self) -> Lane:
        lane = Lane(self._new_channel(), self._lock)
        self._lanes.append(lane)
        return lane
