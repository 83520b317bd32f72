"""API keys choose the tenant, on every replica and after a restart."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, aio

from lavant.v1.access_service_pb2 import ListKeysRequest, RevokeKeyRequest
from lavant.v1.run_service_pb2 import GetRunRequest, ListRunsRequest, RunFilter
from support.calls import create, get, until
from support.clock import ManualClock
from support.credentials import create_key
from support.server import Server, connected, serving
from support.status import refused

PLAIN = ("runs:publish", "runs:read", "runs:admin")


@pytest.fixture
async def servers(tmp_path: Path, overrides: dict[str, Any], clock: ManualClock) -> AsyncIterator[Sequence[Server]]:
    """One server of a file, or two that share a store, with API keys; the first one calls with the first key."""
    async with AsyncExitStack() as stack:
        settings = {"clock": clock, "auth": ["keys"], "init_key": True, **overrides}
        yield [
            await stack.enter_async_context(serving(tmp_path, **settings))
            for _ in range(2 if "store" in overrides else 1)
        ]


async def test_keys_of_tenants_open_their_own_runs_and_no_others(servers: Sequence[Server], clock: ManualClock) -> None:
    admin, other = servers[0].stubs, servers[-1].target
    keys = {tenant: await create_key(admin, *PLAIN, tenant=tenant) for tenant in ("acme", "beta")}
    async with AsyncExitStack() as stack:
        callers = {
            tenant: await stack.enter_async_context(connected(servers[0].target, bearer=secret))
            for tenant, (_, secret) in keys.items()
        }
        for tenant, stubs in callers.items():
            await create(stubs, "same", name=tenant)
        await create(callers["acme"], "only-acme")
        assert {tenant: (await get(stubs, "same")).name for tenant, stubs in callers.items()} == {
            tenant: tenant for tenant in callers
        }
        with refused("RUN_NOT_FOUND"):
            await callers["beta"].runs.GetRun(GetRunRequest(run_id="only-acme"))
        listed = await admin.runs.ListRuns(ListRunsRequest(filter=RunFilter(include_system_runs=True)))
        seen = [run.run_id for run in listed.runs]
        assert seen == ["lavant.audit"], "the first key is of the tenant default, and created the others"

        elsewhere = await stack.enter_async_context(connected(other, bearer=keys["beta"][1]))

        async def is_known() -> bool:
            clock.advance(1)
            await callers["acme"].runs.ListRuns(ListRunsRequest())
            try:
                response = await elsewhere.runs.ListRuns(ListRunsRequest())
            except aio.AioRpcError as error:
                if error.code() != StatusCode.UNAUTHENTICATED:  # the other replica does not know the key yet
                    raise
                return False
            return [run.name for run in response.runs] == ["beta"]

        await until(is_known)


async def test_foreign_key_is_revoked_by_nobody_and_answers_as_one_of_none(servers: Sequence[Server]) -> None:
    admin = servers[0].stubs
    key, _ = await create_key(admin, *PLAIN, tenant="acme")
    _, secret = await create_key(admin, "keys:admin", tenant="beta")
    async with connected(servers[0].target, bearer=secret) as theirs:
        answers = []
        for key_id in (key.key_id, "a" * len(key.key_id)):
            with refused("KEY_NOT_FOUND") as refusal:
                await theirs.access.RevokeKey(RevokeKeyRequest(key_id=key_id))
            answers.append(str(refusal.status).replace(key_id, "ID"))
        assert answers[0] == answers[1]
        assert [one.tenant for one in (await theirs.access.ListKeys(ListKeysRequest())).keys] == ["beta"]
