"""Callers who ask for dear things: others are answered meanwhile, and the work stops when they go."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from threading import Lock
from typing import Any

import apsw
import httpx
import pytest

from lavant.server import slices
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.store.port import RunPage, RunQuery
from lavant.server.store.sqlite import queries
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import (
    DELTA_MODE_MERGED,
    STOP_POSITION_HEAD,
    ListEventsRequest,
    PublishEventsRequest,
    StreamEventsRequest,
)
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter
from lavant.v1.score_service_pb2 import QueryScoresRequest, ScoreFilter
from support.calls import append, create, publishing, until
from support.events import batch_of, custom, message_started, run_started, text_delta
from support.server import Server, connected

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
_DEAR = "dear"
_consumers = count(1)

Greedy = Callable[[Server, httpx.AsyncClient], Awaitable[object]]


class EndlessQueries:
    """Counts the queries that never end, of those who ask for the name `dear`."""

    def __init__(self) -> None:
        self.under_way = self.begun = 0
        self._lock = Lock()

    def run(self, connection: apsw.Connection) -> None:
        with self._lock:
            self.under_way += 1
            self.begun += 1
        try:
            connection.execute(_ENDLESS).fetchall()
        finally:
            with self._lock:
                self.under_way -= 1


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> EndlessQueries:
    """Make lists of runs that are named `dear` endless, and sums of scores of that name."""
    found = EndlessQueries()
    list_runs, read = queries.list_runs, ScoreIndex.read

    def listed(connection: apsw.Connection, query: RunQuery, before: int | None) -> RunPage:
        if _DEAR in query.filter.names:
            found.run(connection)
        return list_runs(connection, query, before)

    async def read_scores(self: ScoreIndex, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        def call(connection: apsw.Connection, *given: Any, **others: Any) -> Any:
            if isinstance(given[1], ScoreFilter) and _DEAR in given[1].names:
                found.run(connection)
            return function(connection, *given, **others)

        return await read(self, call, *arguments, **named)

    monkeypatch.setattr(queries, "list_runs", listed)
    monkeypatch.setattr(ScoreIndex, "read", read_scores)
    return found


async def over_grpc(server: Server, _: httpx.AsyncClient) -> None:
    await server.stubs.runs.ListRuns(ListRunsRequest(filter=RunFilter(names=[_DEAR])))


async def over_http(_: Server, web: httpx.AsyncClient) -> None:
    await web.get("/api/v1/runs", params={"name": _DEAR})


async def scores(server: Server, _: httpx.AsyncClient) -> None:
    await server.stubs.scores.QueryScores(QueryScoresRequest(filter=ScoreFilter(names=[_DEAR])))


@asynccontextmanager
async def greedily(ask: Greedy, server: Server, web: httpx.AsyncClient, callers: int) -> AsyncIterator[None]:
    """Let so many callers ask at once, who are not answered before the block's end; then they go."""
    asked = [asyncio.ensure_future(ask(server, web)) for _ in range(callers)]
    try:
        yield
        assert not any(one.done() for one in asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


@pytest.mark.parametrize("ask", [over_grpc, over_http, scores])
async def test_others_are_answered_while_dear_queries_run_which_stop_when_their_callers_go(
    server: Server, web: httpx.AsyncClient, endless: EndlessQueries, ask: Greedy
) -> None:
    await create(server.stubs)
    async with greedily(ask, server, web, 20), connected(server.target) as neighbour:
        await until(lambda: endless.begun > 1)
        page = await neighbour.runs.ListRuns(ListRunsRequest(page_size=5), timeout=20)
        assert [run.run_id for run in page.runs] == ["run"]
        await neighbour.scores.QueryScores(QueryScoresRequest(), timeout=20)
        assert (await web.get("/api/v1/runs")).is_success
        assert endless.under_way
    await until(lambda: not endless.under_way)
    begun = endless.begun
    await server.stubs.runs.ListRuns(ListRunsRequest())
    assert endless.begun == begun  # those that waited were never begun


async def filtered_pages(server: Server, _: httpx.AsyncClient) -> None:
    request = ListEventsRequest(run_id="long", page_size=1_000, types=[EventType.EVENT_TYPE_ROW_FINISHED])
    await server.stubs.events.ListEvents(request)


async def merged_deltas(server: Server, _: httpx.AsyncClient) -> None:
    request = StreamEventsRequest(
        run_id="long", consumer_id=f"reader-{next(_consumers)}", deltas=DELTA_MODE_MERGED, stop=STOP_POSITION_HEAD
    )
    async for _frame in server.stubs.events.StreamEvents(request):
        pass


async def json_pages(_: Server, web: httpx.AsyncClient) -> None:
    await web.get("/api/v1/runs/long/events", params={"page_size": 1_000})


async def event_stream(_: Server, web: httpx.AsyncClient) -> None:
    await web.get("/api/v1/runs/long/stream", params={"stop": "head", "consumer": f"reader-{next(_consumers)}"})


class Slices:
    """Lets each piece of work be a slice of its own, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(slices, "SLICE", 0.0)
        monkeypatch.setattr(slices, "perf_counter", self._time)

    def _time(self) -> float:
        self.count += 1
        return time.perf_counter()


async def long_run(server: Server) -> None:
    """Publish a run in 2,500 batches of two deltas."""
    await create(server.stubs, "long")
    await append(server.stubs, [run_started(), message_started()], run_id="long")
    async with publishing(server.stubs) as call:
        for first in range(3, 5_003, 500):
            batches = [batch_of([text_delta()] * 2, run_id="long", first=at) for at in range(first, first + 500, 2)]
            await call.write(PublishEventsRequest(batches=batches))
            for _ in batches:
                await call.answer()


@pytest.mark.parametrize("ask", [filtered_pages, merged_deltas, json_pages, event_stream])
async def test_an_append_is_answered_while_greedy_readers_are_served_in_slices(
    server: Server, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, ask: Greedy
) -> None:
    await long_run(server)
    await create(server.stubs, "neighbour")
    counted = Slices(monkeypatch)
    async with greedily(ask, server, web, 8), connected(server.target) as neighbour:
        await until(lambda: counted.count > 0)
        await append(neighbour, [run_started(), custom()], run_id="neighbour")
