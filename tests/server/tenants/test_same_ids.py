"""Tenants that use the same IDs for everything, at once, find their own and nothing else."""

import asyncio
from typing import Any

import httpx

from lavant.v1 import rule_service_pb2, run_service_pb2, score_service_pb2
from support.calls import PATIENCE, answer, append, create, listed, publish, publishing, until
from support.clock import ManualClock
from support.events import a_run_of, message_started, run_finished, run_started, text_delta
from support.hook import Hook
from support.rules import Worker, create_rule, finish, get_rule, update_rule
from support.scores import record, score, scores_of, values
from support.server import Server, Stubs
from support.status import refused
from support.streams import opened, read_to_end, read_until
from support.tenants import authorization, stubs_of

TENANTS = {"acme": 0.1, "beta-2": 0.2, "default": 0.3}
AUDIT = "lavant.audit"  # every tenant has administered something
IDS = ["lavant.rule.1", "a", "b", "run"]
EVERY = run_service_pb2.RunFilter(include_system_runs=True)


async def use(stubs: Stubs, tenant: str, hook: Hook) -> str:
    """Use the server with the IDs of all tenants; return everything that was read, as text."""
    seen: list[Any] = []
    await create(stubs, "run", labels={"of": tenant})
    async with publishing(stubs) as producer:
        await publish(producer, [run_started(), message_started()], run_id="run")
        seen.append(await answer(producer))
    reader = await opened(stubs, run_id="run", consumer_id="ui", session_id="s")
    seen.append((await read_until(reader, "caught_up")).all)
    low = {"name": "low", "below": 0.5, "window": {"seconds": 3_600}, "webhook_url": f"{hook.prefix}{tenant}"}
    await create_rule(stubs, "rule", alerts=[low], labels={"of": tenant})
    worker = await Worker(stubs, "session", worker_id="w").opened()
    await finish(stubs, ["a", "b"], labels={"of": tenant})
    assert await worker.got(2) == ["a", "b"]
    await worker.complete("a", correct=TENANTS[tenant])
    assert not await record(stubs, "score", score("liked", TENANTS[tenant]), run_id="b")
    await append(stubs, [text_delta(f"I am {tenant}"), run_finished()], run_id="run", first=3)
    seen.append((await read_to_end(reader)).all)
    seen += [worker.frames, await listed(stubs, "run"), await listed(stubs, "lavant.rule.1"), await get_rule(stubs)]
    worker.cut()
    return str(seen)


async def look(stubs: Stubs) -> str:
    """Return what a tenant's lists, watches and sums hold, as text."""
    runs = await stubs.runs.ListRuns(run_service_pb2.ListRunsRequest(filter=EVERY))
    assert sorted(run.run_id for run in runs.runs if run.run_id != AUDIT) == sorted(IDS)
    changes = []
    watch = stubs.runs.WatchRuns(run_service_pb2.WatchRunsRequest(filter=EVERY), timeout=PATIENCE)
    async for frame in watch:
        changes.append(frame)
        if frame.caught_up:
            watch.cancel()
            break
    watched = {run.run_id for frame in changes for run in frame.runs} - {AUDIT}
    assert watched == set(IDS)
    rules = await stubs.rules.ListRules(rule_service_pb2.ListRulesRequest())
    scores = await scores_of(stubs)
    assert sorted(one.subject_run_id for one in scores) == ["a", "b"]
    sums = await stubs.scores.QueryScores(score_service_pb2.QueryScoresRequest())
    assert sum(group.count for group in sums.groups) == 2
    return str([runs, changes, rules, scores, sums])


async def test_tenants_with_equal_ids_find_their_own_and_nothing_else(server: Server, hook: Hook) -> None:
    callers = {tenant: stubs_of(server.stubs, tenant) for tenant in TENANTS}
    used = await asyncio.gather(*(use(stubs, tenant, hook) for tenant, stubs in callers.items()))
    seen = dict(zip(callers, used, strict=True))
    for tenant, stubs in callers.items():
        assert values(await scores_of(stubs)) == [TENANTS[tenant]] * 2
        seen[tenant] += await look(stubs)
        async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}/api/v1") as web:
            for path in ("runs", "runs/run", "runs/run/events", "evaluations", "scores", "scores/summary", "rules"):
                answered = await web.get(path, headers=authorization(tenant))
                assert answered.status_code == 200, answered.text
                seen[tenant] += answered.text
    for tenant, text in seen.items():
        assert f"I am {tenant}" in text
        assert not [other for other in TENANTS if other != tenant and other in text]


async def test_deleting_changing_and_cancelling_leaves_equal_ids_of_others_alone(server: Server) -> None:
    mine, theirs = (stubs_of(server.stubs, tenant) for tenant in ("acme", "beta-2"))
    for stubs in (mine, theirs):
        await create_rule(stubs)
        await create(stubs, "open")
        await finish(stubs, ["a"])
    before = await get_rule(theirs)
    rule = await get_rule(mine)
    rule.salt = "other"
    await update_rule(mine, rule)
    await mine.rules.DeleteRule(rule_service_pb2.DeleteRuleRequest(rule_id="rule"))
    await mine.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id="a"))
    await mine.runs.CancelRun(run_service_pb2.CancelRunRequest(run_id="open", reason="mine"))
    assert await get_rule(theirs) == before
    kept = await theirs.runs.ListRuns(run_service_pb2.ListRunsRequest(filter=EVERY))
    assert [run.run_id for run in kept.runs if run.run_id != AUDIT] == ["a", "open", "lavant.rule.1"]
    with refused("RUN_NOT_FOUND"):
        await mine.runs.GetRun(run_service_pb2.GetRunRequest(run_id="a"))
    async with publishing(theirs) as producer:
        await publish(producer, a_run_of(2, finished=False), run_id="open")
        await answer(producer)
        producer.call.cancel()


async def test_alerts_with_equal_names_are_posted_for_each_tenant(
    server: Server, hook: Hook, clock: ManualClock
) -> None:
    low = {"name": "low", "below": 0.5, "window": {"seconds": 3_600}, "webhook_url": f"{hook.prefix}low"}
    for tenant in TENANTS:
        stubs = stubs_of(server.stubs, tenant)
        await create_rule(stubs, alerts=[low])
        worker = await Worker(stubs).opened()
        await finish(stubs, ["a"])
        await worker.got(1)
        await worker.complete("a", correct=TENANTS[tenant])
        worker.cut()

    def all_posted() -> bool:
        clock.advance(0.05)
        return len(hook.posts) >= len(TENANTS)

    await until(all_posted)
    assert {alert_id for _, alert_id, _ in hook.posts} == {f"{tenant}/lavant.alerts.2" for tenant in TENANTS}
    assert {content["value"] for *_, content in hook.posts} == set(TENANTS.values())
