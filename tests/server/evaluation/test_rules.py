"""Rules are created, read, listed, changed and deleted, each safe to repeat."""

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.v1 import rule_service_pb2
from lavant.v1.event_pb2 import Evaluator
from lavant.v1.rule_pb2 import Alert, Rule, SampleFilter
from lavant.v1.run_pb2 import RunState
from support.calls import get
from support.rules import (
    EVALUATOR,
    Worker,
    a_rule,
    create_rule,
    delete_rule,
    evaluated_runs,
    finish,
    get_rule,
    results,
    update_rule,
)
from support.server import Stubs
from support.status import refused


async def test_creating_is_safe_to_repeat(stubs: Stubs) -> None:
    first = await create_rule(stubs, sample_rate=0.5)
    assert await create_rule(stubs, sample_rate=0.5) == first
    with refused("RULE_EXISTS"):
        await create_rule(stubs, sample_rate=0.25)
    assert await get_rule(stubs) == first


async def test_many_create_the_same_rule_at_once(stubs: Stubs) -> None:
    created = await asyncio.gather(*(create_rule(stubs) for _ in range(10)))
    assert all(rule == created[0] for rule in created)


async def test_rules_are_listed_the_newest_first(stubs: Stubs) -> None:
    for number in range(5):
        await create_rule(stubs, f"rule-{number}")
    await delete_rule(stubs, "rule-2")
    listed: list[str] = []
    token = ""
    while True:
        page = await stubs.rules.ListRules(rule_service_pb2.ListRulesRequest(page_size=2, page_token=token))
        listed += [rule.rule_id for rule in page.rules]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["rule-4", "rule-3", "rule-1", "rule-0"]


async def test_a_change_begins_a_new_segment_with_the_samples(stubs: Stubs) -> None:
    rule = await create_rule(stubs)
    ids = await finish(stubs, ["a", "b", "c"])
    worker = await Worker(stubs, max_samples=1).opened()
    await worker.got(1)

    rule.sample_rate = 0
    changed = await update_rule(stubs, rule)
    assert (changed.revision, changed.evaluation_id) == (2, "lavant.rule.2")
    assert changed.progress.runs_selected == 3
    await finish(stubs, ["never"])
    for number, run_id in enumerate(ids):
        await worker.got(number + 1)
        await worker.complete(run_id)
    await worker.caught_up()
    assert worker.run_ids == ids
    assert [sample.rule_revision for sample in worker.samples] == [1, 1, 1]
    first, second = await get(stubs, "lavant.rule.1"), await get(stubs, "lavant.rule.2")
    assert (first.state, second.state) == (RunState.RUN_STATE_SUCCEEDED, RunState.RUN_STATE_RUNNING)
    assert evaluated_runs(await results(stubs, segments=2)) == ids
    assert (await get_rule(stubs)).progress.runs_evaluated == 3


async def test_the_summary_of_a_segment(stubs: Stubs) -> None:
    rule = await create_rule(stubs, max_attempts=1)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a", "b", "c"])
    await worker.got(3)
    await worker.complete("a", correct=1.0, brief=0.5)
    await worker.complete("b", correct=0.5)
    await worker.fail("c")
    rule.salt = "other"
    await update_rule(stubs, rule)
    summary = (await get(stubs, "lavant.rule.1")).result.evaluation
    assert (summary.rows_succeeded, summary.rows_failed) == (2, 1)
    assert summary.mean_scores == {"correct": 0.75, "brief": 0.5}


async def test_an_update_of_nothing_changes_nothing(stubs: Stubs) -> None:
    rule = await create_rule(stubs)
    assert await update_rule(stubs, rule) == rule


async def test_an_update_without_a_mask_keeps_what_the_rule_does_not_set(stubs: Stubs) -> None:
    names = SampleFilter(names=["weather-*"], has_error=False)
    await create_rule(stubs, filter=names, salt="one", sample_rate=0.5)
    changed = await update_rule(stubs, Rule(rule_id="rule", sample_rate=0, filter=SampleFilter(has_error=True)))
    assert (changed.sample_rate, changed.salt, list(changed.evaluators)) == (0, "one", [EVALUATOR])
    assert changed.filter == SampleFilter(names=["weather-*"], has_error=True)


async def test_an_update_with_a_mask_changes_and_clears_its_paths(stubs: Stubs) -> None:
    await create_rule(stubs, filter=SampleFilter(names=["weather-*"], has_error=False), salt="one", labels={"a": "b"})
    paths = ("filter.names", "labels", "evaluators", "sample_rate")
    changed = await update_rule(stubs, Rule(rule_id="rule", salt="ignored", sample_rate=0.5), *paths)
    assert (changed.salt, changed.sample_rate, len(changed.labels), len(changed.evaluators)) == ("one", 0.5, 0, 0)
    assert changed.filter == SampleFilter(has_error=False)
    changed = await update_rule(stubs, Rule(rule_id="rule", filter=SampleFilter(names=["x"])), "filter")
    assert changed.filter == SampleFilter(names=["x"])


@pytest.mark.parametrize("path", ["rule_id", "revision", "paused.x", "filter.names.x", "evaluators.name", "", "*"])
async def test_an_update_of_no_setting_is_refused(stubs: Stubs, path: str) -> None:
    rule = await create_rule(stubs)
    with refused("INVALID_FIELD", "update_mask.paths[1]"):
        await update_rule(stubs, rule, "salt", path)


async def test_an_update_that_contradicts_other_settings_is_refused(stubs: Stubs) -> None:
    alert = Alert(name="low", score_name="correct", below=0.5, window=Duration(seconds=60))
    await create_rule(stubs, alerts=[alert])
    with refused("INVALID_FIELD", "rule.alerts[0].score_name"):
        await update_rule(stubs, Rule(rule_id="rule", evaluators=[Evaluator(name="other")]))


async def test_only_one_of_two_updates_wins(stubs: Stubs) -> None:
    rule = await create_rule(stubs)
    rule.salt = "one"
    await update_rule(stubs, rule)
    rule.salt = "two"
    with refused("RULE_CHANGED"):
        await update_rule(stubs, rule)
    rule.revision = 0
    assert (await update_rule(stubs, rule)).salt == "two"


async def test_many_updates_at_once_all_take_effect(stubs: Stubs) -> None:
    await create_rule(stubs)
    await asyncio.gather(*(update_rule(stubs, a_rule(salt=str(number))) for number in range(8)))
    assert (await get_rule(stubs)).revision == 9


async def test_a_deleted_rule_is_gone_and_its_scores_stay(stubs: Stubs) -> None:
    await create_rule(stubs)
    worker = await Worker(stubs).opened()
    await finish(stubs, ["a", "b"])
    await worker.got(2)
    await worker.complete("a")
    await delete_rule(stubs)
    with refused("RULE_NOT_FOUND"):
        while True:
            await worker.read()
    with refused("RULE_NOT_FOUND"):
        await worker.complete("b")
    with refused("RULE_NOT_FOUND"):
        await delete_rule(stubs)
    assert evaluated_runs(await results(stubs)) == ["a"]
    assert (await get(stubs, "lavant.rule.1")).state == RunState.RUN_STATE_SUCCEEDED

    again = await create_rule(stubs, salt="other")
    assert (again.revision, again.evaluation_id, again.progress.runs_examined) == (1, "lavant.rule.2", 0)
    newcomer = await Worker(stubs, "two").opened()
    await finish(stubs, ["c"])
    assert await newcomer.got(1) == ["c"]


@pytest.mark.parametrize("times", [3])
async def test_a_rule_lives_again_and_again(stubs: Stubs, times: int) -> None:
    for number in range(1, times + 1):
        rule = await create_rule(stubs)
        assert rule.evaluation_id == f"lavant.rule.{number}"
        await delete_rule(stubs)
    with refused("RULE_NOT_FOUND"):
        await get_rule(stubs)


async def test_a_rule_of_the_same_name_has_a_filter_of_its_own(stubs: Stubs) -> None:
    await create_rule(stubs, filter={"names": ["old"]})
    worker = await Worker(stubs).opened()
    await worker.caught_up()
    await delete_rule(stubs)
    with refused("RULE_NOT_FOUND"):
        while True:
            await worker.read()
    await create_rule(stubs, filter={"names": ["new"]})
    newcomer = await Worker(stubs, "two").opened()
    await newcomer.caught_up()
    await finish(stubs, ["a"], name="old")
    await finish(stubs, ["b"], name="new")
    assert await newcomer.got(1) == ["b"]


async def test_an_update_whose_answer_was_lost_is_safe_to_repeat(stubs: Stubs) -> None:
    rule = await create_rule(stubs)
    rule.salt = "other"
    changed = await update_rule(stubs, rule)
    assert (rule.revision, await update_rule(stubs, rule)) == (1, changed)


async def test_results_of_rules_are_never_evaluated(stubs: Stubs) -> None:
    everything = {"kinds": ["RUN_KIND_EVALUATION", "RUN_KIND_AGENT"]}
    for rule_id in ("one", "two"):
        await create_rule(stubs, rule_id, filter=everything)
    workers = [await Worker(stubs, rule_id, rule_id=rule_id).opened() for rule_id in ("one", "two")]
    await finish(stubs, ["a"])
    for worker in workers:
        assert await worker.got(1) == ["a"]
        await worker.complete("a")
        await update_rule(stubs, a_rule(worker.rule_id, filter=everything, salt="sealed"))
    await finish(stubs, ["b"], kind="RUN_KIND_EVALUATION")
    for worker in workers:
        assert await worker.got(2) == ["a", "b"]
        await worker.complete("b")
        progress = (await get_rule(stubs, worker.rule_id)).progress
        assert (progress.runs_examined, progress.runs_evaluated) == (2, 2)
