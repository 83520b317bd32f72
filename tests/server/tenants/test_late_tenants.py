"""What the server does by itself, it does for tenants that come while it runs, and each on its own."""

import asyncio
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lavant.server.observability.tenants import OTHER
from lavant.v1.run_service_pb2 import ListRunsRequest
from lavant.v1.score_service_pb2 import QueryScoresRequest
from server.observability.scraping import Scrape
from support.calls import PATIENCE, create, until
from support.clock import ManualClock
from support.hook import Hook
from support.rules import Worker, create_rule, finish
from support.scores import record, scores_of
from support.server import Server, Stubs, serving
from support.tenants import named_tenants, stubs_of

DAY = 24 * 3600.0
A_LOOK = 61.0


def low(address: str) -> dict[str, Any]:
    return {"name": "low", "below": 0.5, "window": {"seconds": 3_600}, "webhook_url": address}


async def fire(stubs: Stubs, address: str) -> None:
    """Have a rule of a tenant score a run below its alert's threshold."""
    await create_rule(stubs, alerts=[low(address)])
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a"])
    await worker.got(1)
    await worker.complete("a", correct=0.1)
    worker.cut()


async def test_runs_of_each_tenant_are_deleted_in_time(
    tmp_path: Path, overrides: dict[str, Any], clock: ManualClock
) -> None:
    async def kept(stubs: Stubs) -> list[str]:
        response = await stubs.runs.ListRuns(ListRunsRequest(), timeout=PATIENCE)
        return [run.run_id for run in response.runs]

    with named_tenants():
        async with serving(tmp_path, clock=clock, retention=DAY, **overrides) as server:
            early, late = stubs_of(server.stubs, "early"), stubs_of(server.stubs, "late")
            await finish(early, ["run"])
            clock.advance(A_LOOK)
            await finish(late, ["run"])
            await create(late, "open")
            clock.advance(DAY - A_LOOK)

            async def early_is_gone() -> bool:
                clock.advance(1)
                return await kept(early) == []

            await until(early_is_gone)
            assert await kept(late) == ["open", "run"]

            async def late_is_gone() -> bool:
                clock.advance(A_LOOK)
                return await kept(late) == ["open"]

            await until(late_is_gone)


async def test_late_tenants_scores_are_indexed_and_its_rules_counted(server: Server, clock: ManualClock) -> None:
    clock.advance(30)
    for tenant in ("one", "two"):
        stubs = stubs_of(server.stubs, tenant)
        await create_rule(stubs)
        await finish(stubs, ["a"])
        await record(stubs, run_id="a")
        assert len(await scores_of(stubs)) == 1

    async def both_are_counted() -> bool:
        clock.advance(1)
        await server.stubs.runs.ListRuns(ListRunsRequest())
        return Scrape(server.app.metrics).by("tenant", "rules") == {"one": 1, "two": 1}

    await until(both_are_counted)


@pytest.fixture
async def slow_hook() -> AsyncIterator[str]:
    """The address of a server that does not answer."""
    free = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            free.wait()

        def log_message(self, *_: object) -> None:
            pass

    slow = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=slow.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{slow.server_address[1]}/"
    free.set()
    await asyncio.to_thread(slow.shutdown)
    thread.join()
    slow.server_close()


async def test_slow_webhook_of_a_tenant_does_not_delay_that_of_another(
    tmp_path: Path, overrides: dict[str, Any], clock: ManualClock, hook: Hook, slow_hook: str
) -> None:
    overrides["webhooks"].append(slow_hook)
    with named_tenants():
        async with serving(tmp_path, clock=clock, **overrides) as server:
            await fire(stubs_of(server.stubs, "slow"), slow_hook)
            for _ in range(200):
                clock.advance(0.1)
                await server.stubs.runs.ListRuns(ListRunsRequest())
            await fire(stubs_of(server.stubs, "quick"), f"{hook.prefix}quick")

            def posted() -> bool:
                clock.advance(0.05)
                return bool(hook.posts)

            async with asyncio.timeout(8):  # less than a try of the slow one may take
                await until(posted)


async def test_metrics_name_the_busiest_tenants_and_add_up_the_rest(
    tmp_path: Path, overrides: dict[str, Any], clock: ManualClock
) -> None:
    with named_tenants():
        async with serving(tmp_path, clock=clock, metric_tenants=2, **overrides) as server:
            for tenant, count in {"little": 1, "much": 3, "more": 2, "least": 1}.items():
                await finish(stubs_of(server.stubs, tenant), [f"run-{number}" for number in range(count)])
            now = Scrape(server.app.metrics)
            assert now.by("tenant", "tenant_events_total") == {"much": 12, "more": 8, OTHER: 8}
            await finish(stubs_of(server.stubs, "little"), [f"late-{number}" for number in range(9)])
            now = Scrape(server.app.metrics)
            assert now.by("tenant", "tenant_events_total") == {"much": 12, "more": 8, OTHER: 44}


async def test_unreadable_scores_of_a_tenant_hold_up_no_other(
    server: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that fails for one tenant is the others' too, if they share it."""
    from lavant.server.scores.index.tenant import TenantScores

    read = TenantScores._read_feed

    async def failing(self: TenantScores, *what: Any) -> None:
        if self._tenant == "broken":
            raise ValueError("damaged")
        await read(self, *what)

    monkeypatch.setattr(TenantScores, "_read_feed", failing)
    for tenant in ("broken", "whole"):
        stubs = stubs_of(server.stubs, tenant)
        await finish(stubs, ["a"])
        await record(stubs, run_id="a")
    assert len(await scores_of(stubs_of(server.stubs, "whole"))) == 1
    sums = await stubs_of(server.stubs, "whole").scores.QueryScores(QueryScoresRequest())
    assert sum(group.count for group in sums.groups) == 1
