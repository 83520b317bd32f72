"""Tenants of a store on NATS: they are served in turn, and dear lists keep nobody from writing and listing."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import apsw
import pytest

from lavant.server.model import RunKey
from lavant.server.store import listing
from lavant.server.store.jetstream import JetStreamEngine, Location
from lavant.server.store.jetstream.changes import Draft, RunLog
from lavant.server.store.port import RunPage, RunQuery
from lavant.server.turns import Turns
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import RunFilter
from support.calls import until
from support.clock import ManualClock

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def store(location: Location, clock: ManualClock) -> AsyncIterator[JetStreamEngine]:
    engine = await JetStreamEngine.open(location, clock)
    yield engine
    await engine.close()


async def test_changes_of_tenants_are_stored_in_turn(store: JetStreamEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    commits = store._writer._commits
    store_draft = commits.store

    async def noted(log: RunLog, draft: Draft) -> None:
        order.append(log.key.tenant)
        await store_draft(log, draft)

    monkeypatch.setattr(commits, "store", noted)
    monkeypatch.setattr(store._writer, "_turns", Turns(1))
    keys = [RunKey("flood", f"run-{number}") for number in range(20)] + [RunKey("one", "run")]
    await asyncio.gather(*(store.create_run(key, Run(name="weather")) for key in keys))
    assert order.index("one") <= 2
    assert len(order) == 21


async def test_a_dear_list_delays_neither_changes_nor_other_lists(
    store: JetStreamEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[apsw.Connection] = []
    list_runs = listing.list_runs

    def listed(connection: apsw.Connection, query: RunQuery, *others: Any) -> RunPage:
        if query.filter.names:
            under_way.append(connection)
            try:
                connection.execute(_ENDLESS).fetchall()
            finally:
                under_way.remove(connection)
        return list_runs(connection, query, *others)

    monkeypatch.setattr(listing, "list_runs", listed)
    dear = RunQuery(tenant="acme", limit=1, filter=RunFilter(names=["dear"]))
    lists = [asyncio.ensure_future(store.list_runs(dear)) for _ in range(10)]
    await until(lambda: bool(under_way))
    async with asyncio.timeout(20):
        await store.create_run(RunKey("acme", "run"), Run(name="weather"))
        page = await store.list_runs(RunQuery(tenant="acme", limit=5))
    assert [run.run_id for run in page.runs] == ["run"]
    assert not any(one.done() for one in lists)
    for one in lists:
        one.cancel()
    await until(lambda: not under_way)
