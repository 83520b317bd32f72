"""Restrictions: to whom only some runs exist, in each operation of every engine."""

from itertools import count

import pytest

from lavant.server.model import RunKey
from lavant.server.store.port import Engine, RunQuery
from lavant.server.store.restrictions import Restriction
from lavant.v1.run_pb2 import Run, RunSettings
from lavant.v1.run_service_pb2 import RunFilter
from support.engines import KEY, refused, started
from support.events import a_run_of, batch_of, text_delta

RUNS = {
    "weather-1": Run(name="weather", labels={"team": "blue", "stage": "test"}, conversation_id="c1"),
    "weather-2": Run(name="weather-report", labels={"team": "red"}, conversation_id="c1"),
    "billing-1": Run(name="billing", labels={"team": "blue"}, conversation_id="c2"),
    "nameless": Run(),
    "lavant.weather.1": Run(name="weather", labels={"team": "blue"}, conversation_id="c1"),
}
CASES = [
    (Restriction(), {"weather-1", "weather-2", "billing-1", "nameless"}),
    (Restriction(names=("weather",)), {"weather-1"}),
    (Restriction(names=("weather*",)), {"weather-1", "weather-2"}),
    (Restriction(names=("weather*", "billing")), {"weather-1", "weather-2", "billing-1"}),
    (Restriction(names=("*",)), {"weather-1", "weather-2", "billing-1", "nameless"}),
    (Restriction(labels={"team": "blue"}), {"weather-1", "billing-1"}),
    (Restriction(labels={"team": "blue", "stage": "test"}), {"weather-1"}),
    (Restriction(conversation_id="c1"), {"weather-1", "weather-2"}),
    (Restriction(run_ids=("weather-1", "billing-1", "none", "lavant.weather.1")), {"weather-1", "billing-1"}),
    (Restriction(run_ids=("weather-1", "weather-2"), labels={"team": "red"}), {"weather-2"}),
    (Restriction(conversation_id="c1", names=("billing",)), set()),
    (Restriction(labels={"team": "Blue"}), set()),
]


async def create_all(engine: Engine, *, ended: bool = False) -> None:
    for run_id, run in RUNS.items():
        key = KEY._replace(run_id=run_id)
        await engine.create_run(key, run)
        if ended:
            await engine.append(key, batch_of(a_run_of(3), run_id=run_id))


@pytest.mark.parametrize(("restriction", "allowed"), CASES)
def test_a_restriction_allows_runs_that_match_all_of_its_fields(restriction: Restriction, allowed: set[str]) -> None:
    found = set()
    for run_id, settings in RUNS.items():
        run = Run(run_id=run_id)
        run.MergeFrom(settings)
        if restriction.allows(run):
            found.add(run_id)
    assert found == allowed


async def test_lists_and_changes_hold_the_runs_that_a_restriction_allows(engine: Engine) -> None:
    await create_all(engine)
    blue = RunFilter(labels={"team": "blue"})
    for restriction, allowed in CASES:
        query = RunQuery(tenant=KEY.tenant, limit=100, within=restriction)
        assert {run.run_id for run in (await engine.list_runs(query)).runs} == allowed, restriction
        changes, _ = await engine.list_changes(query)
        assert {change.run.run_id for change in changes} == allowed, restriction
        both = RunQuery(tenant=KEY.tenant, limit=100, filter=blue, within=restriction)
        expected = {run_id for run_id in allowed if RUNS[run_id].labels.get("team") == "blue"}
        assert {run.run_id for run in (await engine.list_runs(both)).runs} == expected, restriction
        pages: set[str] = set()
        one = RunQuery(tenant=KEY.tenant, limit=1, within=restriction)
        before: int | None = None
        for _ in count():
            page = await engine.list_runs(one, before)
            pages |= {run.run_id for run in page.runs}
            before = page.next_position
            if before is None:
                break
        assert pages == allowed, restriction


async def test_deletions_are_listed_of_runs_that_a_restriction_allows(engine: Engine) -> None:
    await create_all(engine, ended=True)
    before = await engine.last_change(KEY.tenant)
    for run_id in RUNS:
        await engine.delete_run(KEY._replace(run_id=run_id))
    after = await engine.last_change(KEY.tenant, before)
    for restriction, allowed in CASES:
        assert set(await engine.list_deletions(KEY.tenant, before, after, restriction)) == allowed, restriction
    assert set(await engine.list_deletions(KEY.tenant, before, after)) == set(RUNS)


async def test_a_run_that_is_not_allowed_is_missing_to_whoever_changes_it(engine: Engine) -> None:
    await started(engine, run=Run(name="weather"))
    missing = RunKey(KEY.tenant, "missing")
    blue = Restriction(labels={"team": "blue"})
    batch = batch_of([text_delta()], first=3)
    for key in (KEY, missing):
        with refused("RUN_NOT_FOUND"):
            await engine.append(key, batch, within=blue)
        with refused("RUN_NOT_FOUND"):
            await engine.append(key, batch_of([text_delta()], first=9), within=blue)
        with refused("RUN_NOT_FOUND"):
            await engine.append(key, batch_of(first=9), within=blue)
        with refused("RUN_NOT_FOUND"):
            await engine.cancel_run(key, "enough", blue)
        with refused("RUN_NOT_FOUND"):
            await engine.delete_run(key, blue)
    with refused("RUN_EXISTS"):
        settings = RunSettings(name="weather", labels={"team": "blue"})
        await engine.append(KEY, batch_of([text_delta()], first=3, create=settings), within=blue)
    assert (await engine.append(KEY, batch, within=Restriction(names=("weather",)))).last_sequence == 3


async def test_another_run_with_the_same_id_is_decided_by_its_own_settings(engine: Engine) -> None:
    blue = Restriction(labels={"team": "blue"})
    await engine.append(KEY, batch_of(a_run_of(3), create=RunSettings(labels={"team": "blue"})), within=blue)
    await engine.delete_run(KEY, blue)
    await engine.create_run(KEY, Run(labels={"team": "red"}))
    with refused("RUN_NOT_FOUND"):
        await engine.append(KEY, batch_of(a_run_of(3)), within=blue)
    with refused("RUN_NOT_FOUND"):
        await engine.cancel_run(KEY, "enough", blue)
    assert (await engine.get_run(KEY)).last_sequence == 0
