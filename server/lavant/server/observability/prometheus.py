"""Metrics of a server for Prometheus: one table of all of them, and their values at a scrape."""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import grpc
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from lavant.server.auth.quotas import Quota
from lavant.server.clock import Clock
from lavant.server.evaluation.rules import Rules
from lavant.server.metrics import Histogram, ServerMetrics, StreamMetrics
from lavant.server.model import callers_tenant
from lavant.server.observability.census import Census, Count
from lavant.server.observability.tenants import NamedTenants
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.leases import ConsumerLeases

_Values = Mapping[tuple[str, ...], float | Histogram]
_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """Description of a metric: what operators find in its HELP line and in the documentation."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()

    def family(self, values: _Values) -> Any:
        """Return the metric with a value for each set of label values."""
        family: Any = _FAMILIES[self.kind](self.name, self.text, labels=self.labels)
        for labels, value in values.items():
            if isinstance(value, Histogram):
                ends = [*map(floatToGoString, value.bounds), "+Inf"]
                family.add_metric(labels, list(zip(ends, value.cumulative(), strict=True)), value.sum)
            else:
                family.add_metric(labels, value)
        return family


_PROTOCOL = ("protocol",)
_TENANT = ("tenant",)
_OF_ALL = "; one of the servers that share a store reports it"
_OUTCOMES = [(source, outcome) for source in ("rule", "feedback") for outcome in ("scored", "failed")]

METRICS = (
    MetricDescription("lavant_build_info", "gauge", "Versions of the server, always 1", ("version", "python", "grpc")),
    MetricDescription("lavant_draining", "gauge", "1 while the server drains, else 0"),
    MetricDescription("lavant_calls_open", "gauge", "Open streams and publishing calls, which a drain waits for"),
    MetricDescription("lavant_leases_held", "gauge", "Leases of consumers that this server holds"),
    MetricDescription("lavant_runs_tailed", "gauge", "Runs whose newest events are kept in memory for readers"),
    MetricDescription("lavant_store_events_total", "counter", "Events made durable"),
    MetricDescription("lavant_store_event_bytes_total", "counter", "Bytes of events made durable"),
    MetricDescription("lavant_store_commit_changes", "histogram", "Changes per commit"),
    MetricDescription("lavant_append_batches_total", "counter", "Batches acknowledged", ("outcome",)),
    MetricDescription("lavant_append_rejections_total", "counter", "Batches rejected", ("reason",)),
    MetricDescription(
        "lavant_append_seconds", "histogram", "Seconds from the request of a batch until its events were durable"
    ),
    MetricDescription(
        "lavant_quota_refusals_total", "counter", "Calls and batches refused because a quota was used up", ("quota",)
    ),
    MetricDescription("lavant_denials_total", "counter", "Calls refused for their credentials", ("reason",)),
    MetricDescription("lavant_streams_open", "gauge", "Open streams", _PROTOCOL),
    MetricDescription(
        "lavant_stream_lag_events", "gauge", "Recorded events that open streams have not sent, in total", _PROTOCOL
    ),
    MetricDescription(
        "lavant_stream_lag_events_max", "gauge", "Recorded events that the slowest stream has not sent", _PROTOCOL
    ),
    MetricDescription("lavant_streams_opened_total", "counter", "Streams opened", _PROTOCOL),
    MetricDescription("lavant_streams_caught_up_total", "counter", "Streams that caught up", _PROTOCOL),
    MetricDescription("lavant_stream_events_total", "counter", "Events sent, once per stream", _PROTOCOL),
    MetricDescription("lavant_stream_bytes_total", "counter", "Bytes of frames sent, once per stream", _PROTOCOL),
    MetricDescription(
        "lavant_streams_ended_total", "counter", "Streams that ended or were refused", ("protocol", "reason")
    ),
    MetricDescription(
        "lavant_stream_delivery_seconds",
        "histogram",
        "Seconds from the commit of the first event of a live frame until the frame was sent",
        _PROTOCOL,
    ),
    MetricDescription("lavant_tenant_events_total", "counter", "Events made durable, by tenant", _TENANT),
    MetricDescription("lavant_tenant_streams_open", "gauge", "Open streams, by tenant", _TENANT),
    MetricDescription("lavant_rules", "gauge", "Rules" + _OF_ALL, _TENANT),
    MetricDescription(
        "lavant_samples_waiting", "gauge", "Samples that no worker holds, delayed ones included" + _OF_ALL, _TENANT
    ),
    MetricDescription("lavant_samples_delayed", "gauge", "Samples that wait for their next attempt" + _OF_ALL, _TENANT),
    MetricDescription("lavant_samples_assigned", "gauge", "Samples assigned to workers" + _OF_ALL, _TENANT),
    MetricDescription(
        "lavant_samples_oldest_seconds",
        "gauge",
        "Seconds since the end of the oldest run that waits" + _OF_ALL,
        _TENANT,
    ),
    MetricDescription("lavant_alerts_firing", "gauge", "Alerts whose value is out of bounds" + _OF_ALL, _TENANT),
    MetricDescription("lavant_alerts_unable", "gauge", "Alerts that cannot fire" + _OF_ALL, _TENANT),
    MetricDescription("lavant_workers_connected", "gauge", "Workers that stream samples"),
    MetricDescription(
        "lavant_scores_recorded_total",
        "counter",
        "Scores that this server recorded; failed: failures of evaluators",
        ("source", "outcome"),
    ),
)


class RuleMetrics:
    """Values of rules, samples, scores and alerts; sums over all servers count nothing twice."""

    def __init__(self, census: Census, rules: Rules, server: ServerMetrics, clock: Clock) -> None:
        self._census = census
        self._rules = rules
        self._scores = server.scores
        self._clock = clock

    def values(self, tenants: NamedTenants) -> dict[str, float | _Values]:
        """Return the current values by name."""
        counts, now_ns = self._census.counts, self._clock.time_ns()
        tenants.admit(sorted(counts, key=lambda tenant: (-counts[tenant].firing, -counts[tenant].waiting, tenant)))

        def totals(value: Callable[[Count], int]) -> _Values:
            found: Counter[tuple[str, ...]] = Counter()
            for tenant, count in counts.items():
                found[tenants.label(tenant),] += value(count)
            return found

        ages: dict[tuple[str, ...], float] = {}
        for tenant, count in counts.items():
            label = (tenants.label(tenant),)
            age_ns = 0 if count.oldest_ns is None else now_ns - count.oldest_ns
            ages[label] = max(ages.get(label, 0.0), age_ns / 1e9)
        return {
            "lavant_rules": totals(lambda count: count.rules),
            "lavant_samples_waiting": totals(lambda count: count.waiting),
            "lavant_samples_delayed": totals(lambda count: count.delayed),
            "lavant_samples_assigned": totals(lambda count: count.held),
            "lavant_samples_oldest_seconds": ages,
            "lavant_alerts_firing": totals(lambda count: count.firing),
            "lavant_alerts_unable": totals(lambda count: count.unable),
            "lavant_workers_connected": self._rules.workers,
            "lavant_scores_recorded_total": {outcome: self._scores.recorded[outcome] for outcome in _OUTCOMES},
        }


class PrometheusMetrics(Collector):
    """Metrics of one server and of its process; nothing is registered globally.

    Values are collected at a scrape: until then they cost no more than the counting. No label has more values
    than the contract has reasons, except that of tenants, of which the busiest `most_tenants` are named.
    """

    def __init__(
        self,
        *,
        server: ServerMetrics,
        calls: Calls,
        leases: ConsumerLeases,
        hub: Hub,
        rules: RuleMetrics | None = None,
        most_tenants: int = 0,
    ) -> None:
        self._tenants = NamedTenants(most_tenants)
        self._server = server
        self._calls = calls
        self._leases = leases
        self._hub = hub
        self._rules = rules
        self._build = (version("lavant"), platform.python_version(), grpc.__version__)  # reads files
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus's text format, and its content type. Call on the server's event loop."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Return all families of metrics, for the registry."""
        values = {**self._values(), **self._tenant_values()}
        if self._rules is not None:
            values |= self._rules.values(self._tenants)
        for metric in METRICS:
            if metric.name in values:
                found = values[metric.name]
                yield metric.family(found if isinstance(found, Mapping) else {(): found})

    def _tenant_values(self) -> dict[str, float | _Values]:
        events: Counter[str] = Counter()
        for name, count in self._server.store.events_by_tenant.items():
            events[callers_tenant(name)] += count
        self._tenants.admit(tenant for tenant, _ in events.most_common())
        open_streams = (stream for of in self._server.streams.values() for stream in of.open)
        streams: Counter[tuple[str, ...]] = Counter((self._tenants.label(stream.tenant),) for stream in open_streams)
        return {"lavant_tenant_events_total": self._tenants.totals(events), "lavant_tenant_streams_open": streams}

    def _values(self) -> dict[str, float | _Values]:
        store, appends, streams = self._server.store, self._server.appends, self._server.streams
        lags = {protocol: [stream.lag for stream in of.open] for protocol, of in streams.items()}

        def by_protocol(value: Callable[[StreamMetrics], float | Histogram]) -> _Values:
            return {(protocol,): value(of) for protocol, of in streams.items()}

        return {
            "lavant_build_info": {self._build: 1},
            "lavant_draining": float(self._calls.draining),
            "lavant_calls_open": len(self._calls),
            "lavant_leases_held": len(self._leases),
            "lavant_runs_tailed": len(self._hub),
            "lavant_store_events_total": store.events,
            "lavant_store_event_bytes_total": store.bytes,
            "lavant_store_commit_changes": {(): store.commits},
            "lavant_append_batches_total": {
                (outcome,): appends.answers[outcome] for outcome in ("appended", "duplicate", "empty")
            },
            "lavant_append_rejections_total": {(reason,): n for reason, n in sorted(appends.rejections.items())},
            "lavant_quota_refusals_total": {(kind,): self._server.quotas.refused[kind] for kind in Quota},
            "lavant_denials_total": {
                (reason,): self._server.audit.denied[reason] for reason in ("UNAUTHENTICATED", "PERMISSION_DENIED")
            },
            "lavant_append_seconds": {(): appends.latency},
            "lavant_streams_open": {(protocol,): len(lag) for protocol, lag in lags.items()},
            "lavant_stream_lag_events": {(protocol,): sum(lag) for protocol, lag in lags.items()},
            "lavant_stream_lag_events_max": {(protocol,): max(lag, default=0) for protocol, lag in lags.items()},
            "lavant_streams_opened_total": by_protocol(lambda of: of.opened_count),
            "lavant_streams_caught_up_total": by_protocol(lambda of: of.caught_up_count),
            "lavant_stream_events_total": by_protocol(lambda of: of.events),
            "lavant_stream_bytes_total": by_protocol(lambda of: of.bytes),
            "lavant_streams_ended_total": {
                (protocol, reason): n for protocol, of in streams.items() for reason, n in sorted(of.endings.items())
            },
            "lavant_stream_delivery_seconds": by_protocol(lambda of: of.delivery),
        }
