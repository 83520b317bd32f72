"""Stores that hold scores of long ago, written before a server opens them, and how the dashboard shows them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page

from lavant.server.clock import SystemClock
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_pb2 import ScoreRecorded
from server.http.browser import Site
from support.scores import Segment, recorded

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)  # for whoever looks
HOUR_NS = 3_600_000_000_000
DAY = {"subject_ended_after": "2026-05-03T12:00:00Z", "subject_ended_before": "2026-05-04T12:00:00Z"}
TO = "\N{EN DASH}"
WHY = "It says warm,\nwhere the tool said -4."


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


def two_days() -> list[ScoreRecorded]:
    """Ten runs an hour, of two agents in turn: correct gets worse today, kept stays, tone is a class."""
    scores = []
    for number in range(480):
        hours = 47.95 - number / 10
        of: dict[str, Any] = {"run": f"r{number}", "time_ns": ago(hours), "agent": f"agent {number % 2}"}
        value = None if number % 40 == 3 else (0.9 if hours > 24 else 0.6) + number % 7 / 100
        correct = recorded("correct", value, evaluator="judge", version="2", labels={"team": "ab"[number % 2]}, **of)
        correct.score.explanation = WHY if number % 5 == 0 else "As asked."
        scores += [correct, recorded("kept", number % 4 > 0, rule_id="other", evaluator="keeper", **of)]
        if number % 48 == 0:
            tone = ["warm", "cold"][number % 96 // 48]
            labels = {"team": "a"} if tone == "warm" else {}
            scores.append(recorded("tone", tone, rule_id="other", labels=labels, **of))
    return scores


async def get_json(site: Site, path: str, **asked: Any) -> Any:
    """What the API says of scores."""
    async with httpx.AsyncClient(base_url=site.url) as web:
        return (await web.get(f"/api/v1/scores{path}", params=asked)).raise_for_status().json()


async def legend(page: Page) -> dict[str, list[str]]:
    """What the page says of each line."""
    rows = await page.locator(".legend tbody tr").all()
    return {
        (await row.locator("label").inner_text()).strip(): await row.locator("td").all_inner_texts() for row in rows
    }
