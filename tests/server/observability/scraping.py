"""Reads a server's metrics as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families

from lavant.server.observability.prometheus import PrometheusMetrics


class Scrape:
    """All samples of one scrape."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        body, content_type = metrics.exposition()
        assert content_type.startswith("text/plain; version=")
        self.families = list(text_string_to_metric_families(body.decode()))
        self._values = {
            (sample.name.removeprefix("lavant_"), frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one sample, named without its prefix."""
        return self._values[name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have some labels; 0 if there are none."""
        wanted = labels.items()
        return sum(value for (sample, has), value in self._values.items() if sample == name and wanted <= has)

    def by(self, label: str, name: str) -> dict[str, float]:
        """The values of a metric by one of its labels; those that are 0 are left out."""
        found = {dict(labels)[label]: value for (sample, labels), value in self._values.items() if sample == name}
        return {key: value for key, value in found.items() if value}
