"""Limits of single keys: what their calls may use, and whose calls count for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo

from lavant.v1.access_service_pb2 import (
    CreateAccessTokenRequest,
    CreateKeyRequest,
    GetPrincipalRequest,
    Key,
    KeyLimits,
    ListKeysRequest,
    Restriction,
)
from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.calls import append, create, get, until
from support.clock import ManualClock
from support.events import custom, run_started
from support.server import Server, Stubs, connected, serving
from support.status import Refusal, refused

SCOPES = ("runs:publish", "runs:read", "keys:admin")


@pytest.fixture
async def server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    """A server that accepts API keys; its stubs call with the first one, which has no limits."""
    async with serving(tmp_path, clock=clock, auth=["keys"], init_key=True, http="127.0.0.1:0") as server:
        yield server


async def secret_of(server: Server, limits: KeyLimits) -> str:
    """Create a key with limits, and return its text."""
    key = Key(name="agent", scopes=SCOPES, limits=limits)
    return (await server.stubs.access.CreateKey(CreateKeyRequest(key=key))).secret


@asynccontextmanager
async def limited(server: Server, **limits: Any) -> AsyncIterator[Stubs]:
    """A connection that calls with a new key with limits."""
    secret = await secret_of(server, KeyLimits(**limits))
    async with connected(server.target, bearer=secret) as stubs:
        yield stubs


def check(refusal: Refusal, kind: str) -> float:
    """Check the details of a refusal, and return after how many seconds to retry."""
    assert refusal.metadata["quota"] == kind
    assert refusal.detail(QuotaFailure).violations[0].subject == "principal/key:agent"
    seconds: float = refusal.detail(RetryInfo).retry_delay.ToNanoseconds() / 1e9
    return seconds


async def test_streams_beyond_the_limit_of_a_key_are_refused(server: Server) -> None:
    await create(server.stubs)
    secret = await secret_of(server, KeyLimits(streams=1))
    async with connected(server.target, bearer=secret) as stubs:
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="a"), timeout=30)
        await stream.read()
        with refused("QUOTA_EXCEEDED") as refusal:
            await stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="b"), timeout=30).read()
        check(refusal, "streams")
        async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web:
            bearer = {"authorization": f"Bearer {secret}"}
            response = await web.get("/api/v1/runs/run/stream", headers=bearer)
            assert (response.status_code, response.json()["error"]["reason"]) == (429, "QUOTA_EXCEEDED")
            assert (await web.get("/api/v1/runs/run", headers=bearer)).status_code == 200  # no stream
        other = server.stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="b"), timeout=30)
        assert await other.read()  # another key of the same tenant
        stream.cancel()
        await until(lambda: len(server.app.calls) == 1)
        assert await stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="c"), timeout=30).read()


@pytest.mark.parametrize(("kind", "limit"), [("events_per_second", 10), ("bytes_per_second", 1_024)])
async def test_a_batch_beyond_the_rate_of_a_key_waits(
    server: Server, clock: ManualClock, kind: str, limit: float
) -> None:
    async with limited(server, **{kind: limit}) as stubs:
        await create(stubs)
        await append(stubs, [run_started(), *(custom() for _ in range(49))])
        with refused("QUOTA_EXCEEDED") as refusal:
            await append(stubs, [custom()], first=51)
        await create(server.stubs, "other")
        await append(server.stubs, [run_started(), *(custom() for _ in range(49))], run_id="other")
        clock.advance(check(refusal, kind))
        await append(stubs, [custom()], first=51)


async def test_runs_beyond_the_rate_of_a_key_are_refused(server: Server, clock: ManualClock) -> None:
    async with limited(server, runs_per_second=0.1) as stubs:
        await create(stubs)
        with refused("QUOTA_EXCEEDED") as refusal:
            await create(stubs, "other")
        clock.advance(check(refusal, "runs_per_second"))
        await create(stubs, "other")


async def test_streams_of_a_keys_access_tokens_count_for_it(server: Server) -> None:
    await create(server.stubs)
    async with limited(server, streams=1) as stubs:
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="a"), timeout=30)
        await stream.read()
        request = CreateAccessTokenRequest(restriction=Restriction(run_ids=["run"]))
        token = (await stubs.access.CreateAccessToken(request)).token
    async with connected(server.target, bearer=token) as stubs:
        await until(lambda: not len(server.app.calls))
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="a"), timeout=30)
        await stream.read()
        with refused("QUOTA_EXCEEDED"):
            await stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="b"), timeout=30).read()
        assert (await stubs.access.GetPrincipal(GetPrincipalRequest())).limits == KeyLimits(streams=1)


async def test_a_key_with_limits_creates_no_keys(server: Server) -> None:
    async with limited(server, calls=5) as stubs:
        with refused("PERMISSION_DENIED") as refusal:
            await stubs.access.CreateKey(CreateKeyRequest(key=Key(name="free", scopes=["runs:read"])))
    assert "limits" in refusal.status.message


async def test_limits_are_listed_and_outlive_a_restart(tmp_path: Path) -> None:
    limits = KeyLimits(calls=3, bytes_per_second=4096.5)
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        secret = await secret_of(server, limits)
        (_, key) = (await server.stubs.access.ListKeys(ListKeysRequest())).keys
    assert key.limits == limits
    async with serving(tmp_path, auth=["keys"]) as again, connected(again.target, bearer=secret) as stubs:
        assert (await stubs.access.GetPrincipal(GetPrincipalRequest())).limits == limits


async def test_a_key_without_limits_has_none(server: Server) -> None:
    assert not (await server.stubs.access.GetPrincipal(GetPrincipalRequest())).HasField("limits")
    async with limited(server) as stubs:  # limits that set none
        await create(stubs)
        await get(stubs)


@pytest.mark.parametrize(
    ("limits", "path"),
    [
        (KeyLimits(calls=0), "key.limits.calls"),
        (KeyLimits(streams=-1), "key.limits.streams"),
        (KeyLimits(events_per_second=0), "key.limits.events_per_second"),
        (KeyLimits(runs_per_second=float("nan")), "key.limits.runs_per_second"),
        (KeyLimits(bytes_per_second=1e-9), "key.limits.bytes_per_second"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused(server: Server, limits: KeyLimits, path: str) -> None:
    with refused("INVALID_FIELD") as refusal:
        await secret_of(server, limits)
    assert refusal.status.message.startswith(f"{path}: ")
