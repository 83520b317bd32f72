"""Every ErrorReason of the contract is reached over gRPC, with its code and its details."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from google.rpc.error_details_pb2 import BadRequest, QuotaFailure, ResourceInfo, RetryInfo
from grpc import aio

from lavant.server.auth.signing import Signer
from lavant.server.model import RunKey
from lavant.server.rpc.status import CODES
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1.access_service_pb2 import RevokeKeyRequest
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_service_pb2 import ListEventsRequest, StreamEventsRequest
from lavant.v1.run_service_pb2 import CreateRunRequest, DeleteRunRequest
from support.calls import append, create, ended_run, get
from support.events import a_run_of, custom, message_started, run_started
from support.rules import Worker, backfill, create_rule, get_rule, update_rule
from support.server import Server, Stubs, serving
from support.status import Refusal, refused

KEYS = {"k1": "0123456789abcdef" * 4}
PROMISED: dict[str, list[Any]] = {
    "INVALID_FIELD": [BadRequest],
    "RUN_NOT_FOUND": [ResourceInfo],
    "RULE_NOT_FOUND": [ResourceInfo],
    "KEY_NOT_FOUND": [ResourceInfo],
    "CONSUMER_BUSY": [RetryInfo],
    "SLOW_CONSUMER": [RetryInfo],
    "QUOTA_EXCEEDED": [QuotaFailure],
    "UNAVAILABLE": [RetryInfo],
}
REACHED_WITH_CREDENTIALS = {"UNAUTHENTICATED"}  # by the tests of keys

Call = Callable[[Server], Awaitable[Refusal]]


def stream(stubs: Stubs, **fields: Any) -> Any:
    """Open a stream of the run named "run"."""
    request = StreamEventsRequest(**{"run_id": "run", "consumer_id": "ui", "session_id": "one", **fields})
    return stubs.events.StreamEvents(request, timeout=20)


async def read_to_end(call: Any) -> None:
    """Read what is left of a stream."""
    while await call.read() is not aio.EOF:
        pass


async def page(server: Server, token: str) -> object:
    """List the run's events from a token on."""
    return await server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_token=token))


async def invalid_field(server: Server) -> Refusal:
    with refused("INVALID_FIELD", "settings") as refusal:
        await server.stubs.runs.CreateRun(CreateRunRequest())
    return refusal


async def resume_token_invalid(server: Server) -> Refusal:
    await create(server.stubs)
    with refused("RESUME_TOKEN_INVALID") as refusal:
        await page(server, "forged")
    return refusal


async def store_epoch_changed(server: Server) -> Refusal:
    await create(server.stubs)
    token = ResumeTokens(signer(), "another life").issuer(RunKey("default", "run"), 0, 0).at(0).decode()
    with refused("STORE_EPOCH_CHANGED") as refusal:
        await page(server, token)
    return refusal


async def permission_denied(server: Server) -> Refusal:
    await create(server.stubs)
    token = ResumeTokens(signer(), "any").issuer(RunKey("other tenant", "run"), 0, 0).at(0).decode()
    with refused("PERMISSION_DENIED") as refusal:
        await page(server, token)
    return refusal


def signer() -> Signer:
    """Signs as the server does."""
    return Signer({key_id: bytes.fromhex(key) for key_id, key in KEYS.items()})


async def run_not_found(server: Server) -> Refusal:
    with refused("RUN_NOT_FOUND") as refusal:
        await get(server.stubs)
    return refusal


async def run_exists(server: Server) -> Refusal:
    await create(server.stubs)
    with refused("RUN_EXISTS") as refusal:
        await create(server.stubs, name="another")
    return refusal


async def run_sealed(server: Server) -> Refusal:
    await ended_run(server.stubs)
    with refused("RUN_SEALED") as refusal:
        await append(server.stubs, [custom()], first=5)
    return refusal


async def run_not_ended(server: Server) -> Refusal:
    await create(server.stubs)
    with refused("RUN_NOT_ENDED") as refusal:
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))
    return refusal


async def consumer_busy(server: Server) -> Refusal:
    await create(server.stubs)
    first = stream(server.stubs)
    await first.read()
    with refused("CONSUMER_BUSY") as refusal:
        await stream(server.stubs, session_id="two").read()
    first.cancel()
    return refusal


async def stream_displaced(server: Server) -> Refusal:
    await create(server.stubs)
    first = stream(server.stubs)
    await first.read()
    second = stream(server.stubs, session_id="two", take_over=True)
    await second.read()
    with refused("STREAM_DISPLACED") as refusal:
        await read_to_end(first)
    second.cancel()
    return refusal


async def stale_attempt(server: Server) -> Refusal:
    await create(server.stubs)
    first = stream(server.stubs, attempt=2)
    await first.read()
    with refused("STALE_ATTEMPT") as refusal:
        await stream(server.stubs, attempt=1).read()
    first.cancel()
    return refusal


async def slow_consumer(server: Server) -> Refusal:
    await create(server.stubs)
    await append(server.stubs, [run_started(), message_started()])
    for number in range(3, 30):
        await append(server.stubs, [custom(value_json='"' + "x" * 500_000 + '"')], first=number)
    call = stream(server.stubs)
    await call.read()
    await server.app.calls.ended()  # the stream gave up, though nobody has seen it
    with refused("SLOW_CONSUMER") as refusal:
        await read_to_end(call)
    return refusal


async def quota_exceeded(server: Server) -> Refusal:
    await create(server.stubs)
    streams = [stream(server.stubs, consumer_id=f"c{number}") for number in range(3)]
    for opened in streams:
        await opened.read()
    with refused("QUOTA_EXCEEDED") as refusal:
        await stream(server.stubs).read()
    for opened in streams:
        opened.cancel()
    await server.app.calls.ended()
    again = stream(server.stubs)
    assert await again.read()
    again.cancel()
    return refusal


async def producer_gap(server: Server) -> Refusal:
    await create(server.stubs)
    with refused("PRODUCER_GAP") as refusal:
        await append(server.stubs, [run_started()], first=2)
    return refusal


async def producer_fenced(server: Server) -> Refusal:
    await create(server.stubs)
    await append(server.stubs, [run_started()], epoch=1)
    with refused("PRODUCER_FENCED") as refusal:
        await append(server.stubs, [custom()])
    return refusal


async def producer_conflict(server: Server) -> Refusal:
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    with refused("PRODUCER_CONFLICT") as refusal:
        await append(server.stubs, [run_started()])
    return refusal


async def unavailable(server: Server) -> Refusal:
    await create(server.stubs)
    server.app.calls.drain()
    with refused("UNAVAILABLE") as refusal:
        await stream(server.stubs).read()
    return refusal


async def data_loss(server: Server) -> Refusal:
    """One bit of a stored batch flips while the server runs."""
    await create(server.stubs)
    await append(server.stubs, a_run_of(9, finished=False))
    folder = Path(server.app._settings.store.removeprefix("sqlite:///"))
    await asyncio.to_thread(flip_a_bit, folder)
    with refused("DATA_LOSS") as refusal:
        await page(server, "")
    return refusal


def flip_a_bit(store: Path) -> None:
    """Damage the only batch of a store."""
    connection = apsw.Connection(str(store))
    ((row, events),) = connection.execute("SELECT id, events FROM batches").fetchall()
    assert isinstance(events, bytes)
    damaged = bytes([*events[:40], events[40] ^ 1, *events[41:]])
    connection.execute("UPDATE batches SET events = ? WHERE id = ?", (damaged, row))
    connection.close()


async def rule_not_found(server: Server) -> Refusal:
    with refused("RULE_NOT_FOUND") as refusal:
        await get_rule(server.stubs)
    return refusal


async def key_not_found(server: Server) -> Refusal:
    with refused("KEY_NOT_FOUND") as refusal:
        await server.stubs.access.RevokeKey(RevokeKeyRequest(key_id="none"))
    return refusal


async def rule_exists(server: Server) -> Refusal:
    await create_rule(server.stubs)
    with refused("RULE_EXISTS") as refusal:
        await create_rule(server.stubs, salt="other")
    return refusal


async def rule_changed(server: Server) -> Refusal:
    rule = await create_rule(server.stubs)
    rule.revision, rule.salt = 7, "other"
    with refused("RULE_CHANGED") as refusal:
        await update_rule(server.stubs, rule)
    return refusal


async def backfill_under_way(server: Server) -> Refusal:
    await ended_run(server.stubs)
    await create_rule(server.stubs)
    await backfill(server.stubs)
    with refused("BACKFILL_UNDER_WAY") as refusal:
        await backfill(server.stubs, created_after={"seconds": 1})
    return refusal


async def sample_lost(server: Server) -> Refusal:
    await create_rule(server.stubs)
    with refused("SAMPLE_LOST") as refusal:
        await Worker(server.stubs).complete("run")
    return refusal


REACHED: dict[str, Call] = {
    call.__name__.upper(): call
    for call in (
        invalid_field, resume_token_invalid, store_epoch_changed, run_not_found, run_exists, run_sealed, run_not_ended,
        consumer_busy, stream_displaced, stale_attempt, slow_consumer, quota_exceeded, producer_gap, producer_fenced,
        producer_conflict, permission_denied, unavailable, data_loss, rule_not_found, rule_exists, rule_changed,
        backfill_under_way, sample_lost, key_not_found,
    )
}  # fmt: skip


@pytest.mark.parametrize("reason", REACHED)
async def test_a_reason_comes_with_its_code_and_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(tmp_path, write_timeout=0.5, max_streams=3, token_keys=KEYS) as server:
        refusal = await REACHED[reason](server)

    for kind in PROMISED.get(reason, []):
        detail = refusal.detail(kind)
        if isinstance(detail, RetryInfo):
            assert 0 < detail.retry_delay.ToNanoseconds() <= 60 * 10**9
        if isinstance(detail, QuotaFailure):
            assert [violation.subject for violation in detail.violations] == ["streams"]


def test_every_reason_is_reached_and_has_a_code() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert set(REACHED) | REACHED_WITH_CREDENTIALS == names
    assert {ErrorReason.Name(reason).removeprefix("ERROR_REASON_") for reason in CODES} == names
