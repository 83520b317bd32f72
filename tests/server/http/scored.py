"""Stores that hold scores of long ago, written before a server opens them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from lavant.server.clock import SystemClock
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_pb2 import ScoreRecorded
from support.scores import Segment

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)  # for whoever looks
MINUTE_NS = 60 * 1_000_000_000
HOUR_NS = 60 * MINUTE_NS


def ago(hours: float) -> int:
    """Nanoseconds since 1970 of so many hours before NOW."""
    return round(NOW.timestamp() * 1e9 - hours * HOUR_NS)


async def keep(folder: Path, scores: Iterable[ScoreRecorded]) -> None:
    """Keep scores as results of rules, in a store in a folder that nobody serves from."""
    engine = await SQLiteEngine.open(folder / "lavant.db", SystemClock())
    segments: dict[str, Segment] = {}
    for one in scores:
        if one.rule_id not in segments:
            segments[one.rule_id] = await Segment(engine, one.rule_id).begin()
        await segments[one.rule_id].add(one)
    await engine.close()
