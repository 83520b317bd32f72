"""Evaluation of the runs that a rule selects, with real servers."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from lavant.client import (
    Alert,
    AsyncClient,
    Client,
    ConsumerBusy,
    EvaluatedRun,
    IdleTimeout,
    ProcessedSamples,
    RuleNotFound,
    StreamDisplaced,
)
from lavant.client.evals import correctness, success
from support.judges import Judge, judge_of
from support.sampled import RULE, Broken, Cold, Hanging, Length, finish_runs, found_scores, result_scores
from support.server import Server, ServerProcess


async def test_every_run_has_its_scores_once(client: AsyncClient) -> None:
    await client.rules.create(RULE, evaluators=[Cold(), Length()], score_labels={"team": "weather"})
    await finish_runs(client, ["a", "b"])
    told: list[EvaluatedRun] = []
    done = await client.evaluations.process_stream(
        RULE,
        evaluators=[Cold(), Length()],
        labels={"feeling": "neutral"},
        on_evaluated=told.append,
        until_caught_up=True,
    )
    assert done == ProcessedSamples(evaluated=2, failed=0, lost=0)
    assert sorted(judged.run.id for judged in told) == ["a", "b"]
    once = Counter([(run_id, name) for run_id in "ab" for name in ("Cold", "Length")])
    assert await result_scores(client) == once
    assert await found_scores(client) == once
    cold, length = sorted([score async for score in client.runs.scores("a")], key=lambda score: score.name)
    assert (cold.value, cold.explanation, length.value) == (True, "it said cold", 4.0)
    assert (cold.rule_id, cold.run_name, cold.labels) == (RULE, "weather", {"team": "weather", "feeling": "neutral"})
    rule = await client.rules.get(RULE)
    assert (rule.progress.runs_selected, rule.progress.runs_evaluated) == (2, 2)


async def test_the_results_are_an_evaluation_that_is_streamed_like_any_other(client: AsyncClient) -> None:
    rule = await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    await client.evaluations.process_stream(rule, evaluators=[Cold()], until_caught_up=True)
    async with client.evaluations.stream(rule.evaluation_id) as stream:
        row = await anext(event.row async for event in stream if event.type == "row_complete")
    assert (row.run_id, [score.value for score in row.scores]) == ("a", [True])


async def test_evaluators_that_fail_leave_the_others_alone(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    nonsense = success(Judge("no verdict at all").model)
    evaluators = [Cold(), Broken(), Hanging(), nonsense, correctness(judge_of(0.9).model)]
    await client.evaluations.process_stream(RULE, evaluators=evaluators, timeout=1, until_caught_up=True)
    scores = {score.name: score async for score in client.runs.scores("a")}
    assert {name for name, score in scores.items() if score.error} == {"Broken", "Hanging", "success"}
    assert (scores["Cold"].value, scores["correctness"].value) == (True, 0.9)
    broken, hanging = scores["Broken"].error, scores["Hanging"].error
    assert broken is not None
    assert hanging is not None
    assert (broken.type, broken.message) == ("LookupError", "no judge")
    assert hanging.message == "took longer than 1 s"


async def test_two_workers_share_a_rule(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    run_ids = [f"run-{number}" for number in range(40)]
    await finish_runs(client, run_ids)
    done = await asyncio.gather(
        *(client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True) for _ in range(2))
    )
    assert sum(one.evaluated for one in done) == 40
    assert all(one.evaluated for one in done)
    assert await result_scores(client) == Counter([(run_id, "Cold") for run_id in run_ids])


async def test_what_a_cancelled_worker_held_is_given_back(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a", "b"])
    hanging = Hanging()
    work = asyncio.create_task(
        client.evaluations.process_stream(RULE, evaluators=[hanging], lease=600, timeout=None, max_concurrency=1)
    )
    await hanging.began.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    async with asyncio.timeout(20):
        done = await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
    assert done.evaluated == 2
    assert await result_scores(client) == Counter([("a", "Cold"), ("b", "Cold")])


async def test_one_worker_of_a_name_at_a_time(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    hanging = Hanging()
    first = asyncio.create_task(client.evaluations.process_stream(RULE, evaluators=[hanging], worker="w", timeout=None))
    await hanging.began.wait()
    with pytest.raises(ConsumerBusy):
        await client.evaluations.process_stream(RULE, evaluators=[Cold()], worker="w")
    second = await client.evaluations.process_stream(
        RULE, evaluators=[Cold()], worker="w", take_over=True, until_caught_up=True
    )
    with pytest.raises(StreamDisplaced):
        await first
    assert second.evaluated <= 1


async def test_a_rule_that_is_deleted_ends_its_workers(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    hanging = Hanging()
    work = asyncio.create_task(client.evaluations.process_stream(RULE, evaluators=[hanging], timeout=None))
    await hanging.began.wait()
    await client.rules.delete(RULE)
    with pytest.raises(RuleNotFound):
        await work


async def test_past_runs_are_evaluated_while_others_finish(client: AsyncClient) -> None:
    before, meanwhile = [f"old-{number}" for number in range(30)], [f"new-{number}" for number in range(30)]
    await finish_runs(client, before)
    await client.rules.create(RULE)
    live = asyncio.create_task(finish_runs(client, meanwhile))
    rule = await client.rules.backfill(RULE)
    while not (rule.backfill and rule.backfill.done):
        await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
        rule = await client.rules.get(RULE)
    await live
    await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
    assert rule.backfill.runs_selected == 30
    assert await result_scores(client) == Counter([(run_id, "Cold") for run_id in before + meanwhile])


async def test_feedback_is_found_like_other_scores(client: AsyncClient) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
    score_id = await client.runs.score("a", name="helpful", value=False, explanation="It was warm.", evaluator="ada")
    assert (
        await client.runs.score(
            "a", name="helpful", value=False, explanation="It was warm.", evaluator="ada", score_id=score_id
        )
        == score_id
    )
    found = {score.name: score async for score in client.runs.scores("a")}
    assert set(found) == {"Cold", "helpful"}
    assert (found["helpful"].value, found["helpful"].evaluator, found["helpful"].rule_id) == (False, "ada", "")
    groups = await client.scores.query(by=["rule", "name"], run_names=["weather"])
    assert {(group.rule_id, group.name, group.count, group.pass_rate) for group in groups} == {
        (RULE, "Cold", 1, 1.0),
        ("", "helpful", 1, 0.0),
    }


async def test_the_blocking_client_judges(server: Server, client: AsyncClient) -> None:
    await finish_runs(client, ["a"])

    def work() -> None:
        with Client(server.target) as blocking:
            blocking.rules.create(RULE, evaluators=[Cold()])
            blocking.rules.backfill(RULE)
            told: list[EvaluatedRun] = []
            while not told:
                blocking.evaluations.process_stream(
                    RULE, evaluators=[Cold()], until_caught_up=True, on_evaluated=told.append
                )
            assert [rule.id for rule in blocking.rules.list()] == [RULE]
            assert [(score.run_id, score.value) for score in blocking.scores.list()] == [("a", True)]
            assert blocking.scores.query(by=["name"])[0].pass_rate == 1.0
            blocking.rules.delete(RULE)

    await asyncio.to_thread(work)


async def test_an_alert_reports_scores_out_of_bounds(client: AsyncClient) -> None:
    wrong = Alert(name="wrong", score_name="Cold", below=0.5, window=timedelta(hours=1), min_count=2)
    await client.rules.create(RULE, alerts=[wrong])
    async with client.scores.alerts(consumer="pager", timeout=30) as stream:
        await finish_runs(client, ["a", "b"], output="warm")
        await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
        firing = await anext(stream)
        assert (firing.data.rule_id, firing.data.alert, firing.data.firing) == (RULE, "wrong", True)
        assert (firing.data.value, firing.data.count) == (0, 2)
    async with client.scores.alerts(resume_token=stream.resume_token, idle_timeout=0.1) as later:
        with pytest.raises(IdleTimeout):
            await anext(later)


async def test_a_worker_outlives_its_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    await process_client.rules.create(RULE)
    run_ids = [f"run-{number}" for number in range(100)]
    await finish_runs(process_client, run_ids)
    some = asyncio.Event()
    judged: list[str] = []

    def note(run: EvaluatedRun) -> None:
        judged.append(run.run.id)
        if len(judged) == 20:
            some.set()

    work = asyncio.create_task(
        process_client.evaluations.process_stream(RULE, evaluators=[Cold()], on_evaluated=note, until_caught_up=True)
    )
    await some.wait()
    await server_process.restart()
    async with asyncio.timeout(40):
        await work
    assert await result_scores(process_client) == Counter([(run_id, "Cold") for run_id in run_ids])
