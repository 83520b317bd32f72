"""Turns what a server counts into families of metrics."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

import grpc
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from lavant.server.measures import Distribution, Measures, StreamMeasures
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.places import Places

_FACE = ("face",)


class ServerCollector(Collector):
    """Reads one server each time it is asked. Names are as Prometheus's conventions have them."""

    def __init__(self, *, measures: Measures, calls: Calls, places: Places, hub: Hub) -> None:
        self._measures = measures
        self._calls = calls
        self._places = places
        self._hub = hub
        self._build = _build()  # reads files

    def collect(self) -> Iterator[Metric]:
        """All families of the server's metrics."""
        yield self._build
        yield GaugeMetricFamily("lavant_draining", "1 once the server takes no more calls", float(self._calls.draining))
        yield GaugeMetricFamily("lavant_calls_open", "Long-lived calls, which a drain waits for", len(self._calls))
        yield GaugeMetricFamily("lavant_places_held", "Consumers' places that this server holds", len(self._places))
        yield GaugeMetricFamily("lavant_runs_tailed", "Runs whose newest events are kept for readers", len(self._hub))
        yield from self._store()
        yield from self._appends()
        yield from self._streams()

    def _store(self) -> Iterator[Metric]:
        store = self._measures.store
        yield CounterMetricFamily("lavant_store_events_total", "Events made durable", store.events)
        yield CounterMetricFamily("lavant_store_event_bytes_total", "Bytes of events made durable", store.bytes)
        yield _histogram("lavant_store_commit_changes", "Changes that one commit made durable", {(): store.commits})

    def _appends(self) -> Iterator[Metric]:
        appends = self._measures.appends
        answers = CounterMetricFamily("lavant_append_batches_total", "Batches acknowledged", labels=("outcome",))
        for outcome in ("appended", "duplicate", "empty"):
            answers.add_metric((outcome,), appends.answers[outcome])
        yield answers
        rejections = CounterMetricFamily("lavant_append_rejections_total", "Batches refused", labels=("reason",))
        for reason, count in sorted(appends.rejections.items()):
            rejections.add_metric((reason,), count)
        yield rejections
        yield _histogram(
            "lavant_append_seconds", "From a batch's request until its events are durable", {(): appends.latency}
        )

    def _streams(self) -> Iterator[Metric]:
        faces = self._measures.streams
        lags = {face: [stream.lag for stream in streams.open] for face, streams in faces.items()}

        def gauge(name: str, text: str, values: Mapping[str, float]) -> Metric:
            return _labelled(GaugeMetricFamily(name, text, labels=_FACE), values)

        def counter(name: str, text: str, value: Callable[[StreamMeasures], float]) -> Metric:
            values = {face: value(streams) for face, streams in faces.items()}
            return _labelled(CounterMetricFamily(name, text, labels=_FACE), values)

        yield gauge("lavant_streams_open", "Streams open", {face: len(lag) for face, lag in lags.items()})
        yield gauge(
            "lavant_stream_lag_events",
            "Recorded events that open streams have not sent, all streams together",
            {face: sum(lag) for face, lag in lags.items()},
        )
        yield gauge(
            "lavant_stream_lag_events_max",
            "The same of the stream furthest behind",
            {face: max(lag, default=0) for face, lag in lags.items()},
        )
        yield counter("lavant_streams_opened_total", "Streams opened", lambda of: of.opened_count)
        yield counter("lavant_streams_caught_up_total", "Streams that caught up", lambda of: of.caught_up_count)
        yield counter("lavant_stream_events_total", "Events sent, to each stream", lambda of: of.events)
        yield counter("lavant_stream_bytes_total", "Bytes of frames sent, to each stream", lambda of: of.bytes)
        yield _endings(faces)
        yield _histogram(
            "lavant_stream_delivery_seconds",
            "From the commit of a live frame's first event until the frame is sent",
            {(face,): streams.delivery for face, streams in faces.items()},
            labels=_FACE,
        )


def _build() -> Metric:
    build = {"version": version("lavant"), "python": platform.python_version(), "grpc": grpc.__version__}
    return InfoMetricFamily("lavant_build", "What this server is made of", build)


def _endings(faces: Mapping[str, StreamMeasures]) -> Metric:
    family = CounterMetricFamily(
        "lavant_streams_ended_total", "Streams that ended or were refused", labels=("face", "reason")
    )
    for face, streams in faces.items():
        for reason, count in sorted(streams.endings.items()):
            family.add_metric((face, reason), count)
    return family


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for face, value in values.items():
        family.add_metric((face,), value)
    return family


def _histogram(
    name: str, text: str, distributions: Mapping[tuple[str, ...], Distribution], *, labels: Iterable[str] = ()
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=tuple(labels))
    for values, distribution in distributions.items():
        ends = [*map(floatToGoString, distribution.bounds), "+Inf"]
        buckets = list(zip(ends, distribution.cumulative(), strict=True))
        family.add_metric(values, buckets, distribution.sum)
    return family
