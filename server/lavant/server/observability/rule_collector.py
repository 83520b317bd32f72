"""Metrics of rules, samples, scores and alerts."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lavant.server.clock import Clock
from lavant.server.evaluation.census import Census
from lavant.server.measures import ScoreMeasures

_SHARED = "; one of the servers that share a store reports it, the others report 0"
_OUTCOMES = [(source, outcome) for source in ("rule", "feedback") for outcome in ("scored", "failed")]


class _Desks(Protocol):
    @property
    def workers(self) -> int: ...


class RuleCollector(Collector):
    """Reads what was counted last. Sums over all servers are right: nothing is reported by two of them."""

    def __init__(self, census: Census, desks: _Desks, scores: ScoreMeasures, clock: Clock) -> None:
        self._census = census
        self._desks = desks
        self._scores = scores
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """All families of metrics of rules."""
        count = self._census.count
        oldest = 0.0 if count.oldest_ns is None else max(0.0, (self._clock.time_ns() - count.oldest_ns) / 1e9)
        for name, text, value in (
            ("lavant_rules", "Rules", count.rules),
            ("lavant_samples_waiting", "Samples that no worker holds, delayed ones included", count.waiting),
            ("lavant_samples_delayed", "Samples that wait for the delay before their next attempt", count.delayed),
            ("lavant_samples_held", "Samples that workers hold", count.held),
            ("lavant_samples_oldest_seconds", "Seconds since the end of the oldest run that waits", oldest),
            ("lavant_alerts_firing", "Alerts whose value is out of bounds", count.firing),
            ("lavant_alerts_unable", "Alerts that cannot fire", count.unable),
        ):
            yield GaugeMetricFamily(name, text + _SHARED, value)
        yield GaugeMetricFamily("lavant_workers_connected", "Workers that stream samples", self._desks.workers)
        recorded = CounterMetricFamily(
            "lavant_scores_recorded_total",
            "Scores that this server recorded; failed: failures of evaluators",
            labels=("source", "outcome"),
        )
        for outcome in _OUTCOMES:
            recorded.add_metric(outcome, self._scores.recorded[outcome])
        yield recorded
