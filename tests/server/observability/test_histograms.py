"""Counted exactly: distributions, and how long and how far a stalled reader is behind."""

import asyncio
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from lavant.server.metrics import Histogram, ServerMetrics
from lavant.server.model import RunKey
from lavant.server.observability.prometheus import PrometheusMetrics
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.run_pb2 import Run
from support.calls import until
from support.clock import ManualClock
from support.events import a_run_of, batch_of, run_finished, text_delta
from support.streaming import Written, delivered, options, streaming

KEY = RunKey("default", "run")


class Reader(Written):
    """Accepts frames while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.stalled = False

    async def write(self, data: bytes) -> None:
        """Accept a frame, once the gate is open."""
        self.stalled = not self.gate.is_set()
        await self.gate.wait()
        await super().write(data)


def test_a_value_counts_up_to_its_bound_and_at_it() -> None:
    found = Histogram((1, 2, 5))
    for value in (0.5, 1, 1.5, 2, 5, 6):
        found.observe(value)
    assert found.cumulative() == [2, 4, 5, 6]
    assert found.sum == 16


async def test_a_stalled_reader(tmp_path: Path, clock: ManualClock) -> None:
    metrics = ServerMetrics()
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock, metrics=metrics.store)
    await engine.create_run(KEY, Run(name="weather"))
    await engine.append(KEY, batch_of(a_run_of(2, finished=False)))
    shared = streaming(engine, clock)
    prometheus = PrometheusMetrics(
        server=ServerMetrics(lambda: shared.metrics), calls=shared.calls, leases=shared.leases, hub=shared.hub
    )

    def exported(name: str) -> list[float]:
        families = text_string_to_metric_families(prometheus.exposition()[0].decode())
        samples = [sample for family in families for sample in family.samples]
        return [one.value for one in samples if one.name == name and one.labels["protocol"] == "grpc"]

    reader = Reader()
    call = asyncio.create_task(delivered(shared, options(KEY), reader))
    await until(lambda: reader.frames.kinds[-1:] == ["caught_up"])
    reader.gate.clear()
    await engine.append(KEY, batch_of([text_delta(), text_delta(), text_delta()], first=3))
    await until(lambda: reader.stalled)
    clock.advance(0.25)
    await engine.append(KEY, batch_of([text_delta(), run_finished()], first=6))
    assert exported("lavant_stream_lag_events") == exported("lavant_stream_lag_events_max") == [5]
    assert exported("lavant_stream_delivery_seconds_count") == [0]
    clock.advance(0.5)
    reader.gate.set()
    await call
    assert reader.frames.sequences == list(range(1, 8))
    assert exported("lavant_stream_events_total") == [7]
    assert exported("lavant_stream_lag_events") == [0]
    assert exported("lavant_stream_delivery_seconds_count") == [2]
    assert exported("lavant_stream_delivery_seconds_sum") == [0.75 + 0.5]
    await shared.leases.close()
    await engine.close()
