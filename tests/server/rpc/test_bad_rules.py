"""Rules and outcomes that break a rule of the contract: each answer names the field."""

from math import nan
from typing import Any

import pytest

from lavant.v1 import event_service_pb2 as events
from lavant.v1 import run_service_pb2 as runs
from lavant.v1.event_pb2 import Evaluator, Score
from lavant.v1.rule_pb2 import Alert, Rule
from lavant.v1.rule_service_pb2 import CreateRuleRequest
from lavant.v1.run_pb2 import Error, RunSettings, RunState
from server.rpc.raw import send
from support.events import a_run_of, batch_of
from support.rules import Worker, create_rule, finish
from support.server import Server
from support.status import refused, rejection

EVALUATIONS, RUNS, EVENTS = "/lavant.v1.EvaluationService/", "/lavant.v1.RunService/", "/lavant.v1.EventService/"
WINDOW = {"seconds": 60}
BAD_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"rule_id": ""}, "rule_id"),
    "strange id": ({"rule_id": "a/b"}, "rule_id"),
    "long id": ({"rule_id": "a" * 97}, "rule_id"),
    "rate": ({"sample_rate": 1.5}, "sample_rate"),
    "rate below": ({"sample_rate": -0.1}, "sample_rate"),
    "rate nan": ({"sample_rate": nan}, "sample_rate"),
    "salt": ({"salt": "a" * 129}, "salt"),
    "attempts": ({"max_attempts": 21}, "max_attempts"),
    "attempts below": ({"max_attempts": -1}, "max_attempts"),
    "labels": ({"labels": {str(n): "" for n in range(17)}}, "labels"),
    "evaluator without a name": ({"evaluators": [{}]}, "evaluators[0].name"),
    "two evaluators": ({"evaluators": [{"name": "a"}, {"name": "a"}]}, "evaluators[1].name"),
    "config": ({"evaluators": [{"name": "a", "config_json": "{"}]}, "evaluators[0].config_json"),
    "many evaluators": ({"evaluators": [{"name": str(n)} for n in range(101)]}, "evaluators"),
    "many scores": (
        {"evaluators": [{"name": n, "score_names": [f"{n}{m}" for m in range(66)]} for n in "abc"]},
        "evaluators",
    ),
    "large": ({"evaluators": [{"name": "a", "config_json": '"' + "x" * 70_000 + '"'}]}, ""),
    "kind": ({"filter": {"kinds": [7]}}, "filter.kinds[0]"),
    "no kind": ({"filter": {"kinds": [0]}}, "filter.kinds[0]"),
    "state": ({"filter": {"states": [RunState.RUN_STATE_RUNNING]}}, "filter.states[0]"),
    "name": ({"filter": {"names": [""]}}, "filter.names[0]"),
    "many names": ({"filter": {"names": ["a"] * 101}}, "filter.names"),
    "duration": ({"filter": {"min_duration": {"seconds": -1}}}, "filter.min_duration"),
    "tokens": ({"filter": {"max_tokens": -1}}, "filter.max_tokens"),
    "input": ({"filter": {"input_contains": "x" * 1_025}}, "filter.input_contains"),
    "alert without a name": ({"alerts": [Alert(below=1, window=WINDOW)]}, "alerts[0].name"),  # type: ignore[arg-type]
    "alert of nothing": ({"alerts": [{"name": "a", "window": WINDOW}]}, "alerts[0].threshold"),
    "alert of nan": ({"alerts": [{"name": "a", "above": nan, "window": WINDOW}]}, "alerts[0].above"),
    "alert of no time": ({"alerts": [{"name": "a", "above": 1}]}, "alerts[0].window"),
    "alert to a file": (
        {"alerts": [{"name": "a", "above": 1, "window": WINDOW, "webhook_url": "file:///etc"}]},
        "alerts[0].webhook_url",
    ),
    "alert on what no evaluator gives": (
        {"evaluators": [{"name": "a"}], "alerts": [{"name": "x", "above": 1, "window": WINDOW, "score_name": "b"}]},
        "alerts[0].score_name",
    ),
    "score name": ({"evaluators": [{"name": "a", "score_names": ["b", ""]}]}, "evaluators[0].score_names[1]"),
    "two alerts": ({"alerts": [{"name": "a", "above": 1, "window": WINDOW}] * 2}, "alerts[1].name"),
}


@pytest.mark.parametrize("method", ["CreateRule", "UpdateRule"])
@pytest.mark.parametrize("name", BAD_RULES)
async def test_a_bad_rule(server: Server, name: str, method: str) -> None:
    fields, path = BAD_RULES[name]
    rule = Rule(**{"rule_id": "rule", **fields})
    with refused("INVALID_FIELD", f"rule.{path}".rstrip(".")):
        await send(server.stubs, "/lavant.v1.RuleService/" + method, CreateRuleRequest(rule=rule).SerializeToString())


BAD_SAMPLING: dict[str, tuple[dict[str, Any], str]] = {
    "rule": ({"rule_id": "a/b"}, "rule_id"),
    "worker": ({"worker_id": ""}, "worker_id"),
    "session": ({"session_id": "a\nb"}, "session_id"),
    "attempt": ({"attempt": -1}, "attempt"),
    "many": ({"max_samples": 1_001}, "max_samples"),
    "less than none": ({"max_samples": -1}, "max_samples"),
    "lease": ({"lease": {"seconds": 601}}, "lease"),
    "no lease": ({"lease": {"seconds": 0}}, "lease"),
    "heartbeat": ({"heartbeat_interval": {"seconds": 61}}, "heartbeat_interval"),
}


@pytest.mark.parametrize("name", BAD_SAMPLING)
async def test_bad_sampling(server: Server, name: str) -> None:
    fields, path = BAD_SAMPLING[name]
    await create_rule(server.stubs)
    with refused("INVALID_FIELD", path):
        await Worker(server.stubs).opened(**fields)


GOOD = Score(name="a", passed=True)
BAD_OUTCOMES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "outcome"),
    "no name": ({"scores": {"scores": [Score(passed=True)]}}, "scores.scores[0].name"),
    "no value": ({"scores": {"scores": [Score(name="a")]}}, "scores.scores[0]"),
    "nan": ({"scores": {"scores": [Score(name="a", number=nan)]}}, "scores.scores[0].number"),
    "twice": ({"scores": {"scores": [GOOD, GOOD]}}, "scores.scores[1].name"),
    "many": ({"scores": {"scores": [Score(name=str(n), passed=True) for n in range(501)]}}, "scores.scores"),
    "config": (
        {"scores": {"scores": [Score(name="a", passed=True, evaluator=Evaluator(name="a", config_json="{"))]}},
        "scores.scores[0].evaluator.config_json",
    ),
    "large": ({"scores": {"scores": [Score(name="a", passed=True, explanation="x" * 1_100_000)]}}, "scores.scores"),
    "labels": ({"scores": {"scores": [GOOD], "labels": {str(n): "" for n in range(16)}}}, "scores.labels"),
    "failure": ({"failure": Error(message="x" * 70_000)}, "failure"),
    "details": ({"failure": Error(details_json="{")}, "failure.details_json"),
}


@pytest.mark.parametrize("name", BAD_OUTCOMES)
async def test_a_bad_outcome(server: Server, name: str) -> None:
    outcome, path = BAD_OUTCOMES[name]
    await create_rule(server.stubs, labels={"team": "blue"})
    worker = await Worker(server.stubs).opened()
    await finish(server.stubs, ["a"])
    await worker.got(1)
    with refused("INVALID_FIELD", path):
        await worker.say("a", **outcome)
    assert await worker.complete("a") == [False]


async def test_the_largest_failure_of_the_largest_rule_is_recorded(server: Server) -> None:
    evaluators = [Evaluator(name="é" * 100 + str(n), config_json="{}") for n in range(100)]
    labels = {f"key-{n}": "é" * 120 for n in range(15)}
    await create_rule(server.stubs, evaluators=evaluators, labels=labels, max_attempts=1)
    worker = await Worker(server.stubs).opened()
    await finish(server.stubs, ["a"], name="é" * 256)
    await worker.got(1)
    assert await worker.fail("a", "é" * 30_000) is False
    assert await worker.fail("a", "é" * 30_000) is True


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("CreateRun", runs.CreateRunRequest(run_id="lavant.rule.1", settings=RunSettings(name="x"))),
        ("CancelRun", runs.CancelRunRequest(run_id="lavant.rule.1")),
        ("DeleteRun", runs.DeleteRunRequest(run_id="lavant.rule.1")),
    ],
    ids=["create", "cancel", "delete"],
)
async def test_the_servers_own_runs_are_left_alone(server: Server, method: str, request_: Any) -> None:
    await create_rule(server.stubs)
    with refused("INVALID_FIELD", "run_id"):
        await send(server.stubs, RUNS + method, request_.SerializeToString())


async def test_nothing_is_appended_to_the_servers_own_runs(server: Server) -> None:
    await create_rule(server.stubs)
    batch = batch_of(a_run_of(4), run_id="lavant.rule.1")
    request = events.AppendEventsRequest(batch=batch)
    with refused("INVALID_FIELD", "batch.run_id"):
        await send(server.stubs, EVENTS + "AppendEvents", request.SerializeToString())
    call = server.stubs.events.PublishEvents()
    await call.write(events.PublishEventsRequest(batches=[batch]))
    answer = await call.read()
    assert isinstance(answer, events.PublishEventsResponse)
    assert rejection(answer.answers[0].rejection, "INVALID_FIELD").path == "batch.run_id"
    call.cancel()
