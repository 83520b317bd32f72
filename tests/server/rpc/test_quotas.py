"""Quotas: what a tenant may use of a server, and how it is refused more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from grpc import aio

from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.store.port import RunPage, RunQuery
from lavant.server.store.sqlite.engine import SQLiteEngine
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_service_pb2 import DeleteRunRequest, WaitRunRequest
from server.observability.scraping import Scrape
from support.calls import answer, append, create, get, publish, publishing, until
from support.clock import ManualClock
from support.events import custom, run_finished, run_started, sized
from support.server import Stubs, serving
from support.status import Refusal, refused, rejection


def check(refusal: Refusal, quota: str, *, subject: str = "tenant/default") -> float:
    """Check the details of a refusal, and return after how many seconds to retry."""
    assert refusal.metadata["quota"] == quota
    (violation,) = refusal.detail(QuotaFailure).violations
    assert (violation.subject, violation.description) == (subject, refusal.status.message)
    seconds: float = refusal.detail(RetryInfo).retry_delay.ToNanoseconds() / 1e9
    assert seconds > 0
    return seconds


@asynccontextmanager
async def waiting(stubs: Stubs, run_id: str = "run") -> AsyncIterator[None]:
    """A WaitRun call in progress."""
    call = asyncio.ensure_future(stubs.runs.WaitRun(WaitRunRequest(run_id=run_id, timeout=Duration(seconds=25))))
    yield
    call.cancel()


async def test_streams_beyond_the_quota_are_refused_until_one_ends(tmp_path: Path) -> None:
    async with serving(tmp_path, tenant_streams=1) as server:
        await create(server.stubs)
        first = server.stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="a"), timeout=30)
        await first.read()
        request = StreamEventsRequest(run_id="run", consumer_id="b")
        with refused("QUOTA_EXCEEDED") as refusal:
            await server.stubs.events.StreamEvents(request, timeout=30).read()
        check(refusal, "streams")
        assert "tenant default has 1 streams on this server" in refusal.status.message
        first.cancel()
        await until(lambda: not len(server.app.calls))
        assert await server.stubs.events.StreamEvents(request, timeout=30).read()
        assert Scrape(server.app.metrics)("quota_refusals_total", quota="streams") == 1


async def test_calls_beyond_the_quota_are_refused_over_grpc_and_http(tmp_path: Path) -> None:
    async with serving(tmp_path, tenant_calls=1, http="127.0.0.1:0") as server:
        await create(server.stubs)
        async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web:
            async with waiting(server.stubs):
                await until(lambda: len(server.app.calls) == 1)
                with refused("QUOTA_EXCEEDED") as refusal:
                    await get(server.stubs)
                check(refusal, "calls")
                response = await web.get("/api/v1/runs")
                assert response.status_code == 429
                assert response.headers["retry-after"] == "1"
                assert response.json()["error"]["reason"] == "QUOTA_EXCEEDED"
            await until(lambda: not len(server.app.calls))
            await get(server.stubs)
            assert (await web.get("/api/v1/runs")).status_code == 200


@pytest.mark.parametrize("quota", ["events_per_second", "bytes_per_second"])
async def test_a_batch_beyond_a_rate_is_refused_and_the_call_goes_on(
    tmp_path: Path, clock: ManualClock, quota: str
) -> None:
    limit = 10 if quota == "events_per_second" else 1_024
    async with serving(tmp_path, clock=clock, **{f"tenant_{quota}": limit}) as server:
        await create(server.stubs)
        await create(server.stubs, "other")
        async with publishing(server.stubs) as call:
            await publish(call, [run_started(), *(custom() for _ in range(49))])
            assert (await answer(call)).receipt.last_sequence == 50
            await publish(call, [custom()], first=51)
            seconds = check(rejection((await answer(call)).rejection, "QUOTA_EXCEEDED"), quota)
            await publish(call, [run_started()], run_id="other")  # the quota is that of the tenant
            check(rejection((await answer(call)).rejection, "QUOTA_EXCEEDED"), quota)
            clock.advance(seconds)
            await publish(call, [custom()], first=51)
            assert (await answer(call)).receipt.last_sequence == 51
        with refused("QUOTA_EXCEEDED") as refusal:
            for first in range(52, 80):
                await append(server.stubs, [custom()], first=first)
        check(refusal, quota)


async def test_a_batch_larger_than_a_seconds_worth_passes(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, tenant_events_per_second=10) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), *(custom() for _ in range(99))])
        clock.advance(8.9)
        with refused("QUOTA_EXCEEDED"):
            await append(server.stubs, [custom()], first=101)
        clock.advance(0.2)
        await append(server.stubs, [custom()], first=101)


async def test_empty_batches_are_admitted_whatever_the_rate(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, tenant_events_per_second=1) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), *(custom() for _ in range(99))])
        for _ in range(3):
            await append(server.stubs, [])


async def test_a_refused_batch_keeps_its_run_alive(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, tenant_events_per_second=1) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), *(custom() for _ in range(99))])
        clock.advance(30)
        with refused("QUOTA_EXCEEDED"):
            await append(server.stubs, [custom()], first=101)

        async def is_seen() -> bool:
            return (await get(server.stubs)).producer_seen_time.ToNanoseconds() == clock.time_ns()

        await until(is_seen)


async def test_runs_beyond_the_rate_are_refused(tmp_path: Path, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock, tenant_runs_per_second=0.1) as server:
        await create(server.stubs)
        with refused("QUOTA_EXCEEDED") as refusal:
            await create(server.stubs, "other")
        clock.advance(check(refusal, "runs_per_second"))
        await create(server.stubs, "other")


async def until_refused(stubs: Stubs) -> Refusal:
    """Create runs and end them until one is refused: a count may have read a list that lacked the latest runs."""
    with refused("QUOTA_EXCEEDED") as refusal:
        for number in range(20_000):
            await create(stubs, f"more-{number}")
            await append(stubs, [run_started(), run_finished()], run_id=f"more-{number}")
    return refusal


async def test_open_runs_are_counted_in_the_store(tmp_path: Path, store: dict[str, Any]) -> None:
    async with serving(tmp_path, **store) as server:
        for run_id in ("a", "b"):
            await create(server.stubs, run_id)
    async with serving(tmp_path, tenant_open_runs=3, **store) as server:
        await create(server.stubs, "c")  # from now on the server counts
        check(await until_refused(server.stubs), "open_runs")
        await append(server.stubs, [run_started(), run_finished()], run_id="a")

        async def is_created() -> bool:
            try:
                await create(server.stubs, "d")
            except aio.AioRpcError:
                return False
            return True

        await until(is_created)
        check(await until_refused(server.stubs), "open_runs")


async def test_a_run_that_ends_while_runs_are_counted_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created, listed, ended, counted = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    list_runs, run_once = SQLiteEngine.list_runs, RunQuotas.run_once

    async def list_slowly(engine: SQLiteEngine, query: RunQuery, before: int | None) -> RunPage:
        await created.wait()
        page = await list_runs(engine, query, before)
        listed.set()
        await ended.wait()
        return page

    async def count(quotas: RunQuotas) -> None:
        await run_once(quotas)
        counted.set()

    monkeypatch.setattr(SQLiteEngine, "list_runs", list_slowly)
    monkeypatch.setattr(RunQuotas, "run_once", count)
    async with serving(tmp_path, clock=ManualClock(), tenant_open_runs=1) as server:
        await create(server.stubs)  # begins to count
        created.set()
        await listed.wait()
        await append(server.stubs, [run_started(), run_finished()])
        ended.set()
        await counted.wait()
        await create(server.stubs, "next")


async def test_a_tenants_own_quotas_take_the_place_of_those_of_all(tmp_path: Path, clock: ManualClock) -> None:
    quotas = {"default": {"events_per_second": 1000}, "acme": {"events_per_second": 1}}
    async with serving(tmp_path, clock=clock, tenant_events_per_second=1, tenant_quotas=quotas) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), *(custom() for _ in range(99))])
        await append(server.stubs, [custom()], first=101)


async def test_stored_bytes_beyond_the_quota_are_refused_until_runs_are_deleted(
    tmp_path: Path, store: dict[str, Any]
) -> None:
    async with serving(tmp_path, tenant_stored_bytes=100_000, **store) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), *(sized(900) for _ in range(90))])
        await create(server.stubs, "other")
        async with publishing(server.stubs) as call:
            await publish(call, [run_started(), sized(50_000)], run_id="other")
            refusal = rejection((await answer(call)).rejection, "QUOTA_EXCEEDED")
            assert refusal.metadata == {"quota": "stored_bytes", "limit": "100000"}
            assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in refusal.status.details)
            # a producer fails at once: nobody knows when runs are deleted
            assert "delete runs" in refusal.status.message
            await publish(call, [run_started()], run_id="other")
            assert (await answer(call)).receipt.last_sequence == 1
    async with serving(tmp_path, tenant_stored_bytes=100_000, **store) as server:
        with refused("QUOTA_EXCEEDED"):
            await append(server.stubs, [sized(50_000)], first=2, run_id="other")
        await append(server.stubs, [run_finished()], first=92)
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))

        async def is_free() -> bool:
            try:
                await append(server.stubs, [sized(50_000)], first=2, run_id="other")
            except aio.AioRpcError:
                return False
            return True

        await until(is_free)


async def test_a_run_ends_whatever_its_tenant_has_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, tenant_stored_bytes=1_024) as server:
        await create(server.stubs)
        await append(server.stubs, [run_started(), sized(500)])
        with refused("QUOTA_EXCEEDED"):
            await append(server.stubs, [sized(500), run_finished()], first=3)
        await append(server.stubs, [run_finished()], first=3)
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))
        await create(server.stubs)
        await append(server.stubs, [run_started(), sized(500)])
