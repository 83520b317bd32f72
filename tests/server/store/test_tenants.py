"""The tenants of a store are known from their first run on, whoever creates it."""

from collections.abc import Sequence

import pytest

from lavant.server.model import RunKey, beside
from lavant.server.store.jetstream import JetStreamEngine
from lavant.server.store.port import Engine
from lavant.server.store.tenants import Tenants
from support.calls import until
from support.clock import ManualClock
from support.engines import created
from support.events import a_run_of, batch_of


async def test_tenants_are_listed_once_each_with_those_beside_them(engine: Engine) -> None:
    assert await engine.list_tenants() == []
    for tenant in ("b", "a", beside("a", "rules"), "a-b"):
        for number in range(3):
            await created(engine, RunKey(tenant, f"run-{number}"))
    assert await engine.list_tenants() == ["a", "a-b", "a/rules", "b"]


async def test_tenant_whose_runs_are_deleted_is_listed_as_long_as_its_deletions(engine: Engine) -> None:
    key = RunKey("gone", "run")
    await created(engine, key)
    await engine.append(key, batch_of(a_run_of(4)))
    await engine.delete_run(key)
    assert await engine.list_tenants() == ["gone"]


async def test_each_change_of_any_tenant_is_reported_until_the_watch_is_closed(engine: Engine) -> None:
    seen: list[str] = []
    watch = engine.watch_tenants(seen.append)
    await created(engine, RunKey("a", "run"))
    await created(engine, RunKey(beside("b", "scores"), "run"))
    await engine.append(RunKey("a", "run"), batch_of(a_run_of(4)))
    await until(lambda: seen[:2] == ["a", "b/scores"] and set(seen[2:]) == {"a"})
    watch.close()
    await created(engine, RunKey("c", "run"))
    assert "c" not in seen


async def test_registry_has_tenants_of_callers_from_before_and_from_after_its_start(
    engine: Engine, clock: ManualClock
) -> None:
    await created(engine, RunKey("before", "run"))
    await created(engine, RunKey(beside("lavant", "access"), "keys"))
    async with Tenants(engine, clock) as tenants:
        assert tenants.names() == ["before"]
        await created(engine, RunKey("after", "run"))
        await created(engine, RunKey(beside("after", "rules"), "rule"))
        assert tenants.names() == ["after", "before"]
        assert tenants.having("rules") == ["after"]
        await tenants.run_once()
        assert tenants.names() == ["after", "before"]


async def test_registry_forgets_tenants_that_are_not_in_the_store_any_more(
    engine: Engine, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tenants(engine, clock) as tenants:
        await created(engine, RunKey("a", "run"))
        await created(engine, RunKey("b", "run"))

        async def only_a() -> list[str]:
            await created(engine, RunKey("c", "run"))  # while the list is read
            return ["a"]

        monkeypatch.setattr(engine, "list_tenants", only_a)
        await tenants.run_once()
        assert tenants.names() == ["a", "c"]


async def test_tenant_of_another_replica_is_known(replicas: Sequence[JetStreamEngine], clock: ManualClock) -> None:
    here, there = replicas
    async with Tenants(here, clock) as tenants:
        await created(there, RunKey("elsewhere", "run"))
        await until(lambda: tenants.names() == ["elsewhere"])
