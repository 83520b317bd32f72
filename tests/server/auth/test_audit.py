"""The audit: denials and administrative acts are events of the tenant's run `lavant.audit`."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc import aio

from lavant.server.app import access
from lavant.server.auth import audit_log
from lavant.server.auth.audit_log import AUDIT_RUN
from lavant.server.auth.principal import ALL_SCOPES, Principal, Scope
from lavant.v1.audit_pb2 import AuditOutcome, AuditRecorded
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import CancelRunRequest, DeleteRunRequest
from server.observability.scraping import Scrape
from support.calls import append, create, ended_run, get, listed, until
from support.clock import ManualClock
from support.credentials import create_key
from support.events import custom, run_started
from support.principals import a_principal, calling_as, knowing
from support.server import Server, Stubs, connected, serving
from support.status import refused

As = Callable[[str], Awaitable[Stubs]]
ALLOWED, DENIED, FAILED = (
    AuditOutcome.AUDIT_OUTCOME_ALLOWED,
    AuditOutcome.AUDIT_OUTCOME_DENIED,
    AuditOutcome.AUDIT_OUTCOME_FAILED,
)
DELETE = "/lavant.v1.RunService/DeleteRun"


@pytest.fixture
def principals() -> list[Principal]:
    """An administrator, and a reader."""
    return [
        a_principal("admin", ALL_SCOPES),
        a_principal("reader", [Scope.RUNS_READ]),
        a_principal("publisher", [Scope.RUNS_PUBLISH]),
    ]


async def recorded(stubs: Stubs, run_id: str = AUDIT_RUN) -> list[AuditRecorded]:
    """What the audit has; nothing before its first event."""
    try:
        events = await listed(stubs, run_id)
    except aio.AioRpcError:
        return []
    return [event.audit_recorded for event in events if event.HasField("audit_recorded")]


async def recorded_count(stubs: Stubs, method: str) -> int:
    """The number of calls of a method that the audit has."""
    return sum(audit.count for audit in await recorded(stubs) if audit.method == method)


async def test_an_administrative_act_is_recorded(as_: As) -> None:
    stubs = await as_("admin")
    await ended_run(stubs, "secret-payload")
    await stubs.runs.DeleteRun(DeleteRunRequest(run_id="secret-payload"))

    async def is_recorded() -> bool:
        return bool(await recorded(stubs))

    await until(is_recorded)
    (audit,) = await recorded(stubs)
    assert audit.HasField("first_time")
    audit.ClearField("first_time")
    assert audit == AuditRecorded(
        outcome=ALLOWED,
        principal="key:admin",
        credential_id="admin",
        peer="127.0.0.1",
        protocol="grpc",
        method=DELETE,
        resources=["run/secret-payload"],
        count=1,
    )


async def test_an_act_that_fails_is_recorded_with_its_reason(as_: As) -> None:
    stubs = await as_("admin")
    with refused("RUN_NOT_FOUND"):
        await stubs.runs.CancelRun(CancelRunRequest(run_id="missing"))

    async def is_recorded() -> bool:
        return bool(await recorded(stubs))

    await until(is_recorded)
    (audit,) = await recorded(stubs)
    assert (audit.outcome, audit.reason, list(audit.resources)) == (FAILED, "RUN_NOT_FOUND", ["run/missing"])


async def test_denials_over_grpc_and_http_are_recorded(principals_server: Server, as_: As) -> None:
    reader, admin = await as_("reader"), await as_("admin")
    with refused("PERMISSION_DENIED"):
        await create(reader)
    async with httpx.AsyncClient(base_url=f"http://{principals_server.app.http_address}") as web:
        response = await web.get("/api/v1/rules/quality", headers={"authorization": "Bearer reader"})
        assert response.status_code == 403

    async def are_recorded() -> bool:
        return len(await recorded(admin)) == 2

    await until(are_recorded)
    found = {audit.protocol: audit for audit in await recorded(admin)}
    assert found["grpc"].method == "/lavant.v1.RunService/CreateRun"
    assert found["http"].method == "GET /api/v1/rules/{rule_id}"
    assert list(found["http"].resources) == ["rule/quality"]
    for audit in found.values():
        assert (audit.outcome, audit.reason) == (DENIED, "PERMISSION_DENIED")
        assert (audit.principal, audit.peer, audit.count) == ("key:reader", "127.0.0.1", 1)


async def test_a_flood_of_denials_is_summarized_and_adds_up(as_: As, clock: ManualClock) -> None:
    reader, admin = await as_("reader"), await as_("admin")
    method = "/lavant.v1.RunService/CreateRun"

    async def deny() -> None:
        with suppress(aio.AioRpcError):
            await create(reader)

    async def first_is_recorded() -> bool:
        return await recorded_count(admin, method) >= 1

    for _ in range(3):
        await asyncio.gather(*(deny() for _ in range(100)))
        await until(first_is_recorded)
    assert await recorded_count(admin, method) < 300
    clock.advance(11)
    clock.advance(1)

    async def all_are_recorded() -> bool:
        return await recorded_count(admin, method) == 300

    await until(all_are_recorded)
    assert len(await recorded(admin)) <= 3


async def test_what_is_left_is_recorded_at_the_end(
    tmp_path: Path, overrides: dict[str, Any], principals: list[Principal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "open_to_all", knowing(*principals))
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, **overrides) as server, calling_as(server.target, "admin") as stubs:
        for number in range(20):
            await ended_run(stubs, f"run-{number}")
            await stubs.runs.DeleteRun(DeleteRunRequest(run_id=f"run-{number}"))
    async with serving(tmp_path, clock=clock, **overrides) as server, calling_as(server.target, "admin") as stubs:
        assert await recorded_count(stubs, DELETE) == 20
        named = {resource for audit in await recorded(stubs) for resource in audit.resources}
        assert named == {f"run/run-{number}" for number in range(20)}


async def test_calls_of_strangers_are_counted_and_in_no_audit(principals_server: Server, as_: As) -> None:
    stubs = await as_("nobody")
    with refused("UNAUTHENTICATED"):
        await get(stubs)
    assert Scrape(principals_server.app.metrics)("denials_total", reason="UNAUTHENTICATED") == 1
    assert not await recorded(await as_("admin"))


async def test_a_take_over_is_recorded(as_: As) -> None:
    stubs = await as_("admin")
    await create(stubs)
    request = StreamEventsRequest(run_id="run", consumer_id="ui", session_id="a-secret", take_over=True)
    await stubs.events.StreamEvents(request, timeout=30).read()

    async def is_recorded() -> bool:
        return bool(await recorded(stubs))

    await until(is_recorded)
    (audit,) = await recorded(stubs)
    assert list(audit.resources) == ["run/run", "consumer/ui"]
    assert "a-secret" not in str(audit)


async def test_a_take_over_of_a_producer_is_recorded_once(as_: As, principals_server: Server) -> None:
    admin, reader = await as_("admin"), await as_("publisher")
    await create(reader)
    await append(reader, [run_started()])
    with refused("PRODUCER_GAP"):
        await append(admin, [custom()], first=9, epoch=1)
    for first in (1, 2):
        await append(admin, [custom()], first=first, epoch=1)

    async def is_recorded() -> bool:
        return bool(await recorded(admin))

    await until(is_recorded)
    (audit,) = await recorded(admin)
    assert (audit.outcome, audit.principal, audit.count) == (ALLOWED, "key:admin", 1)
    assert audit.method == "/lavant.v1.EventService/AppendEvents"
    assert list(audit.resources) == ["run/run", "producer/p"]


async def test_refused_metrics_are_recorded(tmp_path: Path, clock: ManualClock) -> None:
    settings: dict[str, Any] = {"admin": "0.0.0.0:0", "auth": ["keys"], "init_key": True}
    async with serving(tmp_path, clock=clock, **settings) as server:
        _, key = await create_key(server.stubs, "runs:read")
        port = server.app.admin_address.rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as admin:
            assert (await admin.get("/metrics", headers={"authorization": f"Bearer {key}"})).status_code == 403
            assert (await admin.get("/metrics")).status_code == 401

        async def is_recorded() -> bool:
            return await recorded_count(server.stubs, "GET /metrics") == 1

        await until(is_recorded)
        assert Scrape(server.app.metrics)("denials_total", reason="UNAUTHENTICATED") == 1


async def test_a_full_audit_is_continued_in_the_next_run(
    as_: As, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MOST_EVENTS", 3)
    stubs = await as_("admin")
    for number in range(4):
        run_id = f"run-{number}"
        await ended_run(stubs, run_id)
        await stubs.runs.DeleteRun(DeleteRunRequest(run_id=run_id))

        async def is_recorded(run_id: str = run_id) -> bool:
            clock.advance(1)
            found = [*await recorded(stubs), *await recorded(stubs, f"{AUDIT_RUN}.2")]
            return f"run/{run_id}" in {resource for audit in found for resource in audit.resources}

        await until(is_recorded)
    first = await get(stubs, AUDIT_RUN)
    assert first.state == RunState.RUN_STATE_SUCCEEDED
    assert first.result.output_json == '{"continued_in":"lavant.audit.2"}'
    assert len(await recorded(stubs)) == 2
    assert await recorded(stubs, f"{AUDIT_RUN}.2")


async def test_producers_cannot_write_to_the_audit(server: Server) -> None:
    await create(server.stubs)
    with refused("INVALID_FIELD"):
        await append(server.stubs, [Event(audit_recorded=AuditRecorded())])
    with refused("INVALID_FIELD"):
        await append(server.stubs, [custom()], run_id=AUDIT_RUN)
    async with connected(server.target) as other:
        assert not await recorded(other)
