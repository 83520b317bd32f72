"""Metrics of rules, samples, scores and alerts: one server of several counts what they share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1 import rule_service_pb2
from lavant.v1.run_pb2 import Error
from server.observability.scraping import Scrape
from support.clock import ManualClock
from support.rules import Worker, create_rule, finish
from support.scores import record
from support.server import Server, serving

DOWN = Error(type="RuntimeError", message="429 rate limited")
LOW = {"name": "low", "below": 0.5, "window": {"seconds": 3_600}}
UNABLE = {"name": "typo", "below": 0.5, "window": {"seconds": 3_600}, "score_name": "corect"}


@pytest.fixture
async def servers(tmp_path: Path, overrides: dict[str, str], clock: ManualClock) -> AsyncIterator[Sequence[Server]]:
    """One server of a file, or two that share a store."""
    async with AsyncExitStack() as stack:
        count = 2 if overrides else 1
        yield [await stack.enter_async_context(serving(tmp_path, clock=clock, **overrides)) for _ in range(count)]


def total(servers: Sequence[Server], name: str, **labels: str) -> float:
    """The sum over all servers, as Prometheus makes it."""
    return sum(Scrape(server.app.metrics).total(name.removeprefix("lavant_"), **labels) for server in servers)


async def counted(servers: Sequence[Server], clock: ManualClock, met: Callable[[], bool]) -> None:
    """Let time pass until what is counted is so."""
    async with asyncio.timeout(30):
        while not met():
            clock.advance(0.5)
            await servers[0].stubs.rules.ListRules(rule_service_pb2.ListRulesRequest())


async def test_rules_and_samples_are_counted_once(servers: Sequence[Server], clock: ManualClock) -> None:
    stubs = servers[0].stubs
    await create_rule(stubs, evaluators=[], alerts=[LOW, UNABLE])
    await finish(stubs, ["a", "b", "c"])
    clock.advance(5)
    await counted(servers, clock, lambda: total(servers, "lavant_samples_oldest_seconds") >= 5)
    assert total(servers, "lavant_workers_connected") == 0
    worker = await Worker(servers[-1].stubs).opened()
    await worker.got(3)
    await worker.complete("a", correct=0.1)
    await worker.say("b", returned=pb.SampleReturn(delay={"seconds": 600}, error=DOWN))  # type: ignore[arg-type]
    await record(stubs, run_id="a")
    await counted(servers, clock, lambda: total(servers, "lavant_samples_assigned") == 1)
    sums = {
        "lavant_rules": 1,
        "lavant_samples_waiting": 1,
        "lavant_samples_delayed": 1,
        "lavant_workers_connected": 1,
        "lavant_alerts_firing": 1,
        "lavant_alerts_unable": 1,
    }
    assert {name: total(servers, name) for name in sums} == sums
    assert total(servers, "lavant_samples_oldest_seconds") >= 5
    assert total(servers, "lavant_scores_recorded_total", source="rule", outcome="scored") == 1
    assert total(servers, "lavant_scores_recorded_total", source="rule", outcome="failed") == 0
    assert total(servers, "lavant_scores_recorded_total", source="feedback", outcome="scored") == 1
