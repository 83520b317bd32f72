"""What a server counts of itself: plain numbers, written on its event loop, for whoever wants to read them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Protocol

from lavant.server.errors import LavantError
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import StreamEndReason

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
_CANCELLED, _INTERNAL = "CANCELLED", "INTERNAL"


class Distribution:
    """How often values of which size were seen. `bounds` are the upper ends, inclusive, of all ranges but the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Take in a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """How many values were at or below each bound, and at last how many there were."""
        return list(accumulate(self.counts))


class StoreMeasures:
    """What was made durable, counted a commit at a time: events and their bytes, and the changes of each commit."""

    def __init__(self) -> None:
        self.events = self.bytes = 0
        self.commits = Distribution(COUNTS)


class AppendMeasures:
    """What became of producers' batches. `latency` is in seconds from the request until its events were durable."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.latency = Distribution(SECONDS)

    def appended(self, seconds: float) -> None:
        """New events were stored."""
        self.answers["appended"] += 1
        self.latency.observe(seconds)

    def rejected(self, error: BaseException) -> None:
        """A batch was refused."""
        self.rejections[_reason(error)] += 1


class Stream(Protocol):
    """What is told of a stream of events."""

    @property
    def run_id(self) -> str:
        """The run it reads."""

    @property
    def lag(self) -> int:
        """How many recorded events its reader was not sent yet."""

    @property
    def reader_gone(self) -> bool:
        """Whether its last write failed."""

    @property
    def end_reason(self) -> "StreamEndReason.ValueType":
        """Why it ended as planned."""


class StreamMeasures:
    """What the streams of one face have sent, counted a frame at a time.

    `delivery` is in seconds from the commit of a frame's first event until flow control accepted the frame,
    for readers that had caught up; frames that were read back from the store are not in it.
    """

    def __init__(self) -> None:
        self.open: set[Stream] = set()
        self.opened_count = self.caught_up_count = 0
        self.endings: Counter[str] = Counter()
        self.events = self.bytes = 0
        self.delivery = Distribution(SECONDS)

    @contextmanager
    def delivering(self, stream: Stream) -> Iterator[None]:
        """Follow a stream, or one that is refused, to its end."""
        reason = _CANCELLED
        try:
            yield
            reason = StreamEndReason.Name(stream.end_reason).removeprefix("STREAM_END_REASON_")
        except Exception as error:
            if not stream.reader_gone:
                reason = _reason(error)
            raise
        finally:
            self.open.discard(stream)
            self.ended(reason)

    def opened(self, stream: Stream) -> None:
        """The first frame was sent."""
        self.open.add(stream)
        self.opened_count += 1

    def caught_up(self) -> None:
        """All that was recorded was sent."""
        self.caught_up_count += 1

    def ended(self, reason: str) -> None:
        """A stream ended, or was refused."""
        self.endings[reason] += 1

    def sent(self, size: int) -> None:
        """A frame was accepted."""
        self.bytes += size

    def delivered(self, events: int, seconds: float | None) -> None:
        """It held events; `seconds`, if known, is how long after their commit."""
        self.events += events
        if seconds is not None:
            self.delivery.observe(seconds)


class ScoreMeasures:
    """Scores that this server recorded, of rules and of people: values, and failures of evaluators."""

    def __init__(self) -> None:
        self.recorded: Counter[tuple[str, str]] = Counter()

    def add(self, events: Iterable[Event]) -> None:
        """Events were made durable, scores among them."""
        for event in events:
            if event.HasField("score_recorded"):
                source = "rule" if event.score_recorded.rule_id else "feedback"
                self.recorded[source, "failed" if event.score_recorded.score.HasField("error") else "scored"] += 1


class Measures:
    """All that one server counts."""

    def __init__(self, new_streams: Callable[[], StreamMeasures] = StreamMeasures) -> None:
        self.store = StoreMeasures()
        self.appends = AppendMeasures()
        self.scores = ScoreMeasures()
        self.streams = {"grpc": new_streams(), "http": new_streams()}


def _reason(error: BaseException) -> str:
    if isinstance(error, LavantError):
        return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    return _INTERNAL
