"""Quotas of the server: what a client publishes waits for them, and none of it is lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from lavant.client import AsyncClient, QuotaExceeded
from lavant.v1.event_service_pb2 import BatchAnswer, BatchReceipt, PublishEventsResponse
from support.calls import until
from support.clock import ManualClock
from support.scripted import PublishAct, Script, played, status
from support.server import serving

_EVENTS = 150


def full(milliseconds: int = 1) -> Status:
    """A rejection for a quota that is free again soon."""
    refusal = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(nanos=milliseconds * 1_000_000)))
    refusal.details.append(detail)
    return refusal


def act(refusal: Status | None = None) -> PublishAct:
    """Answer all batches of a call: with a rejection, or with receipts."""

    async def answer(requests: Any, _: object) -> AsyncIterator[PublishEventsResponse]:
        async for request in requests:
            for batch in request.batches:
                last = batch.first_producer_sequence + len(batch.events) - 1
                given = BatchAnswer(run_id=batch.run_id, first_producer_sequence=batch.first_producer_sequence)
                if refusal is not None:
                    given.rejection.CopyFrom(refusal)
                else:
                    given.receipt.CopyFrom(BatchReceipt(last_producer_sequence=last, last_sequence=last))
                yield PublishEventsResponse(answers=[given])

    return answer


async def test_a_producer_waits_for_its_quota_without_loss(tmp_path: Path) -> None:
    async with serving(tmp_path, tenant_events_per_second=50) as server, AsyncClient(server.target) as client:
        async with client.runs.start("agent", run_id="run", on_error="raise") as run:
            for number in range(_EVENTS):
                await run.custom("acme.number", number)
                if number % 20 == 0:
                    await run.flush()
        events = [event async for event in client.runs.events("run", page_size=1_000)]
        numbers = [event.data.value for event in events if event.type == "custom"]
        assert numbers == list(range(_EVENTS))
        assert server.app.metrics._server.quotas.refused["events_per_second"]


async def test_a_quota_that_is_used_up_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(publishes=[act(full()), act(full()), act(full()), act()])
    async with played(script) as client, client.runs.start("agent", on_error="raise") as run:
        await run.custom("acme.number", 1)
        await run.flush()
        assert len(script.batches) == 4
    assert not caplog.records


async def test_a_call_is_repeated_when_its_quota_is_free_again(tmp_path: Path, clock: ManualClock) -> None:
    async with (
        serving(tmp_path, clock=clock, tenant_runs_per_second=20) as server,
        AsyncClient(server.target) as client,
        asyncio.TaskGroup() as calls,
    ):
        for number in range(30):
            calls.create_task(client.runs.create("agent", run_id=f"run-{number}"))
        await until(lambda: bool(server.app.metrics._server.quotas.refused["runs_per_second"]))
        clock.advance(1)


async def test_a_quota_that_stays_used_up_is_raised(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, tenant_runs_per_second=0.001) as server,
        AsyncClient(server.target, timeout=2) as client,
    ):
        await client.runs.create("agent", run_id="first")
        with pytest.raises(QuotaExceeded) as raised:
            await client.runs.create("agent", run_id="second")
        assert raised.value.retry_after is not None
        assert raised.value.retry_after > 100
