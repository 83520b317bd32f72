"""API keys: what they allow, for how long, and what is kept of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lavant.v1.access_service_pb2 import (
    CreateKeyRequest,
    GetPrincipalRequest,
    Key,
    ListKeysRequest,
    Restriction,
    RevokeKeyRequest,
)
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_service_pb2 import GetRunRequest, ListRunsRequest
from support.calls import create, publishing, until
from support.clock import ManualClock
from support.credentials import calling_with, create_key
from support.server import Server, connected, serving
from support.status import refused

ADMIN = ("keys:admin", "runs:read")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that accepts API keys; its stubs call with the first one."""
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        yield server


def contents(folder: Path) -> bytes:
    """Return what all files of a folder hold."""
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


async def test_a_call_without_credentials_is_refused(server: Server) -> None:
    async with connected(server.target) as stubs:
        with refused("UNAUTHENTICATED"):
            await stubs.runs.ListRuns(ListRunsRequest())


@pytest.mark.parametrize("credential", ["lvk_abcdefghijkl_secret", "lvk_", "lvk_x", "nonsense", "a.b.c", "lva_x"])
async def test_a_credential_that_is_not_valid_is_refused(server: Server, credential: str) -> None:
    async with connected(server.target, bearer=credential) as stubs:
        with refused("UNAUTHENTICATED"):
            await stubs.runs.ListRuns(ListRunsRequest())


async def test_another_secret_of_a_known_key_is_refused(server: Server) -> None:
    key, secret = await create_key(server.stubs, "runs:read")
    forged = secret[:-1] + ("a" if secret[-1] != "a" else "b")
    async with connected(server.target, bearer=forged) as stubs:
        with refused("UNAUTHENTICATED") as refusal:
            await stubs.runs.ListRuns(ListRunsRequest())
    assert key.key_id not in refusal.status.message


async def test_two_credentials_in_a_call_are_refused(server: Server) -> None:
    _, secret = await create_key(server.stubs, "runs:read")
    with refused("UNAUTHENTICATED"):
        await server.stubs.runs.ListRuns(ListRunsRequest(), metadata=[("authorization", f"Bearer {secret}")])


async def test_metadata_beyond_8_kib_in_all_is_refused(server: Server) -> None:
    with refused("INVALID_FIELD"):
        await server.stubs.runs.ListRuns(ListRunsRequest(), metadata=[(f"k{n}", "v" * 900) for n in range(9)])


async def test_a_missing_scope_is_named(server: Server) -> None:
    async with calling_with(server.stubs, server.target, "runs:publish") as stubs:
        await create(stubs)
        with refused("PERMISSION_DENIED") as refusal:
            await stubs.runs.ListRuns(ListRunsRequest())
    assert refusal.metadata == {"scope": "runs:read"}


async def test_a_key_sees_the_runs_of_its_tenant_only(server: Server) -> None:
    await create(server.stubs, "theirs")
    async with calling_with(server.stubs, server.target, "runs:read", "runs:publish", tenant="acme") as stubs:
        await create(stubs, "ours")
        runs = (await stubs.runs.ListRuns(ListRunsRequest())).runs
        with refused("RUN_NOT_FOUND"):
            await stubs.runs.GetRun(GetRunRequest(run_id="theirs"))
    assert [run.run_id for run in runs] == ["ours"]


async def test_a_revoked_key_ends_its_open_streams(server: Server) -> None:
    await create(server.stubs)
    key, secret = await create_key(server.stubs, "runs:read", "runs:publish")
    async with connected(server.target, bearer=secret) as stubs:
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
        await stream.read()
        async with publishing(stubs) as publisher:
            await until(lambda: len(server.app.calls) == 2)
            await server.stubs.access.RevokeKey(RevokeKeyRequest(key_id=key.key_id))
            with refused("UNAUTHENTICATED"):
                while await stream.read():
                    pass
            with refused("UNAUTHENTICATED"):
                await publisher.answer()
        with refused("UNAUTHENTICATED") as refusal:
            await stubs.runs.GetRun(GetRunRequest(run_id="run"))
    assert "revoked" in refusal.status.message
    await until(lambda: not len(server.app.calls))


async def test_a_key_beyond_its_expiry_is_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, auth=["keys"], init_key=True) as server:
        key = Key(name="agent", scopes=["runs:read"])
        key.expire_time.FromNanoseconds(clock.time_ns() + 60 * 10**9)
        secret = (await server.stubs.access.CreateKey(CreateKeyRequest(key=key))).secret
        async with connected(server.target, bearer=secret) as stubs:
            await stubs.runs.ListRuns(ListRunsRequest())
            clock.advance(60)
            with refused("UNAUTHENTICATED"):
                await stubs.runs.ListRuns(ListRunsRequest())


async def test_keys_and_their_revocation_outlive_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        first = server.app.first_key
        _, kept = await create_key(server.stubs, "runs:read")
        revoked, dead = await create_key(server.stubs, "runs:read")
        await server.stubs.access.RevokeKey(RevokeKeyRequest(key_id=revoked.key_id))
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        assert not server.app.first_key
        async with connected(server.target, bearer=kept) as stubs:
            await stubs.runs.ListRuns(ListRunsRequest())
        async with connected(server.target, bearer=dead) as stubs:
            with refused("UNAUTHENTICATED"):
                await stubs.runs.ListRuns(ListRunsRequest())
    files = contents(tmp_path)
    for secret in (first, kept, dead):
        assert secret.encode() not in files
        assert secret.rpartition("_")[2].encode() not in files


async def test_nobody_grants_a_scope_that_they_lack(server: Server) -> None:
    async with calling_with(server.stubs, server.target, *ADMIN) as stubs:
        await create_key(stubs, "runs:read")
        with refused("PERMISSION_DENIED") as refusal:
            await create_key(stubs, "runs:read", "runs:admin")
    assert refusal.metadata == {"scope": "runs:admin"}


async def test_keys_of_another_tenant_need_tenants_admin(server: Server) -> None:
    key, _ = await create_key(server.stubs, "runs:read", tenant="acme")
    async with calling_with(server.stubs, server.target, *ADMIN) as stubs:
        for request in (ListKeysRequest(tenant="acme"), ListKeysRequest(tenant="*")):
            with refused("PERMISSION_DENIED"):
                await stubs.access.ListKeys(request)
        with refused("PERMISSION_DENIED"):
            await create_key(stubs, "runs:read", tenant="acme")
        with refused("KEY_NOT_FOUND"):
            await stubs.access.RevokeKey(RevokeKeyRequest(key_id=key.key_id))


async def test_a_restricted_credential_creates_no_keys(server: Server) -> None:
    restriction = Restriction(names=["weather-*"])
    async with calling_with(server.stubs, server.target, *ADMIN, restriction=restriction) as stubs:
        with refused("PERMISSION_DENIED"):
            await create_key(stubs, "runs:read")


async def test_keys_are_listed_in_pages_without_secrets(server: Server) -> None:
    made = [await create_key(server.stubs, "runs:read", name=f"agent-{n}") for n in range(3)]
    found: list[Key] = []
    token = ""
    while True:
        page = await server.stubs.access.ListKeys(ListKeysRequest(page_size=2, page_token=token))
        found += page.keys
        token = page.next_page_token
        if not token:
            break
    assert [key.name for key in found] == ["admin", "agent-0", "agent-1", "agent-2"]
    assert not any(secret.rpartition("_")[2] in str(found) for _, secret in made)


async def test_two_keys_of_one_name_are_one_principal(server: Server) -> None:
    names = set()
    for _ in range(2):
        async with calling_with(server.stubs, server.target, "runs:read") as stubs:
            names.add((await stubs.access.GetPrincipal(GetPrincipalRequest())).principal)
    assert names == {"key:agent"}


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (Key(name="agent", scopes=["runs:write"]), "key.scopes[0]"),
        (Key(name="agent"), "key.scopes"),
        (Key(scopes=["runs:read"]), "key.name"),
        (Key(name="agent", scopes=["runs:read"], tenant="Acme/x"), "key.tenant"),
        (Key(name="agent", scopes=["runs:read"], tenant="lavant"), "key.tenant"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(server: Server, key: Key, path: str) -> None:
    with refused("INVALID_FIELD") as refusal:
        await server.stubs.access.CreateKey(CreateKeyRequest(key=key))
    assert refusal.status.message.startswith(f"{path}: ")


async def test_keys_created_at_once_are_all_kept(server: Server) -> None:
    made = await asyncio.gather(*(create_key(server.stubs, "runs:read", name=f"a{n}") for n in range(20)))
    listed = (await server.stubs.access.ListKeys(ListKeysRequest(page_size=100))).keys
    assert {key.key_id for key, _ in made} <= {key.key_id for key in listed}
