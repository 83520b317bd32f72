"""A server's metrics, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from lavant.server.measures import Measures
from lavant.server.observability.collector import ServerCollector
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.places import Places


class Metrics:
    """The metrics of one server, and of the process it is in; nothing is kept outside of it.

    Values are put together when they are asked for: until then they cost nothing beyond the counting.
    No label has more values than the contract has reasons.
    """

    def __init__(
        self, *, measures: Measures, calls: Calls, places: Places, hub: Hub, rules: Collector | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ServerCollector(measures=measures, calls=calls, places=places, hub=hub))
        if rules is not None:
            self._registry.register(rules)
        ProcessCollector(registry=self._registry)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics as they stand, and their content type. To be called on the server's event loop."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
