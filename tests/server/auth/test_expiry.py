"""Calls whose credential expires: each kind ends before it does, and can be continued with another credential."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from lavant.v1 import evaluation_service_pb2
from lavant.v1.event_service_pb2 import STREAM_END_REASON_CREDENTIAL_EXPIRED, PublishEventsRequest, StreamEventsRequest
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import ListRunsRequest, WaitRunRequest, WatchRunsRequest
from support.calls import create, publishing, until
from support.clock import ManualClock
from support.events import a_run_of, batch_of
from support.issuer import AUDIENCE, ISSUER, Issuer
from support.rules import create_rule
from support.server import Server, Stubs, connected, serving
from support.status import refused

SCOPES = "runs:read runs:publish rules:read rules:write samples:work"
LIFE = 8  # seconds, within which a lease need not be renewed
FrameT = TypeVar("FrameT")


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[Issuer]:
    issuer = Issuer(now=clock.time_ns() // 1_000_000_000)
    yield issuer
    issuer.close()


@pytest.fixture
async def server(tmp_path: Path, clock: ManualClock, issuer: Issuer) -> AsyncIterator[Server]:
    settings = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": issuer.url, "jwt_algorithm": "ES256"}
    async with serving(tmp_path, clock=clock, auth=["jwt"], http="127.0.0.1:0", **settings) as server:
        yield server


@pytest.fixture
def token(issuer: Issuer) -> str:
    return issuer.token(scope=SCOPES, exp=issuer.now + LIFE)


@pytest.fixture
async def stubs(server: Server, token: str) -> AsyncIterator[Stubs]:
    async with connected(server.target, bearer=token) as stubs:
        yield stubs


async def last_of(call: AsyncIterable[FrameT]) -> FrameT:
    """The last frame of a call that ends with OK."""
    return [frame async for frame in call][-1]


async def test_stream_ends_before_its_jwt_expires_and_resumes_with_a_new_one(
    server: Server, stubs: Stubs, clock: ManualClock, issuer: Issuer
) -> None:
    await create(stubs)
    stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
    await anext(aiter(stream))
    await until(lambda: len(server.app.calls) == 1)
    clock.advance(LIFE - 0.5)
    frame = await last_of(stream)
    assert (frame.end.reason, frame.end.reconnect) == (STREAM_END_REASON_CREDENTIAL_EXPIRED, True)
    assert frame.end.retry_delay.ToMilliseconds() == 500
    clock.advance(0.5)
    again = StreamEventsRequest(run_id="run", consumer_id="ui", resume_token=frame.resume_token, attempt=2)
    with refused("UNAUTHENTICATED"):
        await anext(aiter(stubs.events.StreamEvents(again)))
    async with connected(server.target, bearer=issuer.token(exp=issuer.now + 10 * LIFE)) as renewed:
        opened = await anext(aiter(renewed.events.StreamEvents(again)))
        assert opened.HasField("opened")


async def test_watch_ends_before_its_jwt_expires(server: Server, stubs: Stubs, clock: ManualClock) -> None:
    watch = stubs.runs.WatchRuns(WatchRunsRequest())
    await anext(aiter(watch))
    clock.advance(LIFE - 0.5)
    frame = await last_of(watch)
    assert (frame.end.reason, frame.end.reconnect) == (STREAM_END_REASON_CREDENTIAL_EXPIRED, True)


async def test_samples_end_before_their_jwt_expires(server: Server, stubs: Stubs, clock: ManualClock) -> None:
    await create_rule(stubs, "quality")
    samples = stubs.evaluations.SampleRuns(
        evaluation_service_pb2.SampleRunsRequest(rule_id="quality", worker_id="worker")
    )
    await anext(aiter(samples))
    clock.advance(LIFE - 0.5)
    frame = await last_of(samples)
    assert (frame.end.reason, frame.end.reconnect) == (STREAM_END_REASON_CREDENTIAL_EXPIRED, True)


async def test_publishing_ends_before_its_jwt_expires_with_all_answered(
    server: Server, stubs: Stubs, clock: ManualClock
) -> None:
    await create(stubs)
    async with publishing(stubs) as call:
        await call.write(PublishEventsRequest(batches=[batch_of(a_run_of(2, finished=False))]))
        assert (await call.answer()).HasField("receipt")
        clock.advance(LIFE - 0.5)
        with refused("UNAUTHENTICATED"):
            await call.answer()
    await until(lambda: not len(server.app.calls))


async def test_wait_returns_the_run_once_its_jwt_expires(server: Server, stubs: Stubs, clock: ManualClock) -> None:
    await create(stubs)
    clock.advance(LIFE - 4.7)
    request = WaitRunRequest(run_id="run")
    request.timeout.FromSeconds(60)
    waiting = asyncio.ensure_future(stubs.runs.WaitRun(request))
    await clock.awaited(4.7)
    clock.advance(4.7)
    assert (await waiting).run.state == RunState.RUN_STATE_QUEUED
    with refused("UNAUTHENTICATED"):
        await stubs.runs.WaitRun(request)


async def test_call_that_does_not_end_by_itself_is_ended_after_its_jwt_expired(
    server: Server, stubs: Stubs, clock: ManualClock
) -> None:
    await create(stubs)
    stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
    await anext(aiter(stream))
    await until(lambda: len(server.app.calls) == 1)
    clock.advance(LIFE + 1)  # at once: the stream has no turn to end by itself
    with refused("UNAUTHENTICATED"):
        async for frame in stream:
            assert not frame.HasField("end")
    await until(lambda: not len(server.app.calls))


async def test_http_stream_ends_before_its_jwt_expires(
    server: Server, stubs: Stubs, clock: ManualClock, token: str
) -> None:
    await create(stubs)
    url = f"http://{server.app.http_address}/api/v1/runs/run/stream"
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=20) as web:
        async with web.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            lines = response.aiter_lines()
            assert await anext(lines) == "retry: 1000"
            clock.advance(LIFE - 0.5)
            rest = [line async for line in lines]
        assert 'data: {"reason": "CREDENTIAL_EXPIRED", "reconnect": true}' in rest
        clock.advance(0.5)
        refusal = await web.get(url, headers=headers)
    assert (refusal.status_code, refusal.headers["www-authenticate"]) == (401, "Bearer")
    assert refusal.json()["error"]["reason"] == "UNAUTHENTICATED"


async def test_remembered_jwt_costs_no_verification(server: Server, stubs: Stubs, issuer: Issuer) -> None:
    issuer.publish("second")
    for _ in range(3):
        await stubs.runs.ListRuns(ListRunsRequest())
    assert issuer.fetches == 1
