"""Metrics of a server: plain numbers that its event loop writes, without a metrics library on the hot path."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Protocol

from lavant.server.errors import ServiceError
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import StreamEndReason

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
_CANCELLED, _INTERNAL = "CANCELLED", "INTERNAL"


class Histogram:
    """Counts of observed values per bucket. `bounds` are the inclusive upper ends of all buckets but the last."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """Return the number of values at or below each bound, and finally the number of all values."""
        return list(accumulate(self.counts))


class StoreMetrics:
    """Metrics of the store, counted per commit: durable events and their bytes, and changes per commit."""

    def __init__(self) -> None:
        self.events = self.bytes = 0
        self.events_by_tenant: Counter[str] = Counter()  # with tenants of the server's own
        self.commits = Histogram(COUNTS)

    def stored(self, tenant: str, events: int, size: int) -> None:
        """Count the events of a batch that were made durable, and their bytes."""
        self.events += events
        self.bytes += size
        self.events_by_tenant[tenant] += events


class AppendMetrics:
    """Metrics of appended batches. `latency` is in seconds from the request until its events were durable."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.latency = Histogram(SECONDS)

    def appended(self, seconds: float) -> None:
        """Count a batch whose events were stored."""
        self.answers["appended"] += 1
        self.latency.observe(seconds)

    def rejected(self, error: BaseException) -> None:
        """Count a rejected batch."""
        self.rejections[_reason(error)] += 1


class Stream(Protocol):
    """A stream of events, as far as its metrics need it."""

    @property
    def tenant(self) -> str:
        """Tenant of the run."""

    @property
    def run_id(self) -> str:
        """ID of the run."""

    @property
    def lag(self) -> int:
        """Number of recorded events that were not sent yet."""

    @property
    def reader_gone(self) -> bool:
        """Whether the last write failed."""

    @property
    def end_reason(self) -> "StreamEndReason.ValueType":
        """Reason of a regular end."""


class StreamMetrics:
    """Metrics of the streams of one protocol, counted per frame.

    `delivery` is in seconds from the commit of a frame's first event until flow control accepted the frame,
    for readers that had caught up; frames read from the store are not counted.
    """

    def __init__(self) -> None:
        self.open: set[Stream] = set()
        self.opened_count = self.caught_up_count = 0
        self.endings: Counter[str] = Counter()
        self.events = self.bytes = 0
        self.delivery = Histogram(SECONDS)
        self._stalled: set[Stream] = set()

    @contextmanager
    def delivering(self, stream: Stream) -> Iterator[None]:
        """Count the end of a stream, or its refusal, when the block ends."""
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
            if stream in self._stalled:
                self._stalled.discard(stream)
            else:
                self.ended(reason)

    def stalled(self, stream: Stream) -> None:
        """Count the end of a stream whose reader does not read; its call stays open until the reader has gone."""
        self.open.discard(stream)
        self._stalled.add(stream)
        self.ended("SLOW_CONSUMER")

    def opened(self, stream: Stream) -> None:
        """Count a stream whose first frame was sent."""
        self.open.add(stream)
        self.opened_count += 1

    def caught_up(self) -> None:
        """Count a stream that sent everything recorded so far."""
        self.caught_up_count += 1

    def ended(self, reason: str) -> None:
        """Count a stream that ended or was refused."""
        self.endings[reason] += 1

    def sent(self, size: int) -> None:
        """Count the bytes of a frame that flow control accepted."""
        self.bytes += size

    def delivered(self, events: int, seconds: float | None) -> None:
        """Count the events of a frame, sent `seconds` after their commit if that is known."""
        self.events += events
        if seconds is not None:
            self.delivery.observe(seconds)


class ScoreMetrics:
    """Metrics of the scores that this server recorded: by source (rule or feedback) and outcome."""

    def __init__(self) -> None:
        self.recorded: Counter[tuple[str, str]] = Counter()

    def add(self, events: Iterable[Event]) -> None:
        """Count the scores among events that were made durable."""
        for event in events:
            for score in event.row_finished.scores:
                self.recorded["rule", "failed" if score.HasField("error") else "scored"] += 1
            if event.HasField("score_recorded"):
                self.recorded["feedback", "scored"] += 1


class QuotaMetrics:
    """Metrics of quotas: calls and batches that were refused because one was used up, by its name."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()


class AuditMetrics:
    """Metrics of the audit: calls that were refused for their credentials, by the reason."""

    def __init__(self) -> None:
        self.denied: Counter[str] = Counter()


class ServerMetrics:
    """All metrics of one server."""

    def __init__(self, new_streams: Callable[[], StreamMetrics] = StreamMetrics) -> None:
        self.store = StoreMetrics()
        self.appends = AppendMetrics()
        self.scores = ScoreMetrics()
        self.quotas = QuotaMetrics()
        self.audit = AuditMetrics()
        self.streams = {"grpc": new_streams(), "http": new_streams()}


def _reason(error: BaseException) -> str:
    return error.reason_name if isinstance(error, ServiceError) else _INTERNAL
