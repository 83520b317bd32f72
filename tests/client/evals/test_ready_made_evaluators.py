"""Each evaluator of pydantic-evals' own on stored runs: what it passes, and what it fails."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from pydantic_evals.evaluators import (
    ArgumentCorrectness,
    Contains,
    Equals,
    EqualsExpected,
    Evaluator,
    HasMatchingSpan,
    IsInstance,
    LLMJudge,
    MaxDuration,
    MaxModelRequests,
    MaxToolCalls,
    ToolCorrectness,
    TrajectoryMatch,
)

from lavant.client import AsyncClient
from lavant.client.evals import evaluate
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.judges import Judge, judge_of

AnyEvaluator = Evaluator[Any, Any, Any]


def search_web(q: str) -> str:
    return q


def note(text: str) -> str:
    return text


async def by_an_agent(client: AsyncClient) -> str:
    """Record an agent of pydantic-ai that calls two tools with "a" and says so."""
    model = TestModel(custom_output_text="It is cold in Oslo.")
    agent = Agent(model, name="weather-agent", tools=[search_web, note], capabilities=[LavantCapability(client)])
    await agent.run("How is it?")
    return (await anext(client.runs.list())).id


async def by_a_producer(client: AsyncClient) -> str:
    """Record the same without a framework, and a call that failed."""
    async with client.runs.start("weather-agent") as run:
        async with run.step("test", "model_request"):
            await run.text("I look. ")
        for name, arguments in (("search_web", {"q": "a"}), ("note", {"text": "a"})):
            async with run.tool(name, arguments) as tool:
                tool.result = "a"
        try:
            async with run.tool("broken"):
                raise LookupError("no such city")
        except LookupError:
            pass
        async with run.step("test", "model_request"):
            await run.text("Done.")
        run.output = "It is cold in Oslo."
    return run.id


def nested(name: str) -> AnyEvaluator:
    return HasMatchingSpan({"name_equals": "invoke_agent weather-agent", "some_child_has": {"name_equals": name}})


PASSING: list[AnyEvaluator] = [
    Contains("cold"),
    Equals("It is cold in Oslo."),
    EqualsExpected(),
    IsInstance("str"),
    ToolCorrectness(["note", "search_web"]),
    TrajectoryMatch(["search_web", "note"], order="exact"),
    ArgumentCorrectness("search_web", {"q": "a"}, match_mode="exact"),
    MaxToolCalls(3),
    MaxModelRequests(2),
    MaxDuration(timedelta(minutes=1)),
    nested("execute_tool search_web"),
    LLMJudge("It is cold.", judge_of(0.9).model),
]
FAILING: list[AnyEvaluator] = [
    Contains("warm"),
    Equals("It is warm."),
    EqualsExpected(),
    IsInstance("dict"),
    ToolCorrectness(["search_web"]),
    TrajectoryMatch(["note", "search_web"], order="exact"),
    ArgumentCorrectness("search_web", {"q": "b"}),
    MaxToolCalls(1),
    MaxModelRequests(1),
    MaxDuration(0),
    nested("execute_tool other"),
    LLMJudge("It is warm.", judge_of(0.1).model),
]


@pytest.mark.parametrize("record", [by_an_agent, by_a_producer])
async def test_what_is_right_passes(client: AsyncClient, record: Any) -> None:
    run = await client.runs.get(await record(client))
    scores = await evaluate(client.runs.events(run.id), PASSING, run=run, expected_output="It is cold in Oslo.")
    assert [(score.name, score.value, score.error) for score in scores] == [
        (type(each).__name__, 1.0 if isinstance(each, TrajectoryMatch) else True, None) for each in PASSING
    ]


@pytest.mark.parametrize("record", [by_an_agent, by_a_producer])
async def test_what_is_wrong_fails(client: AsyncClient, record: Any) -> None:
    run = await client.runs.get(await record(client))
    scores = await evaluate(client.runs.events(run.id), FAILING, run=run, expected_output="It is warm in Oslo.")
    assert [(score.name, score.value, score.error) for score in scores] == [
        (type(each).__name__, 0.0 if isinstance(each, TrajectoryMatch) else False, None) for each in FAILING
    ]


async def test_failed_calls_count_where_they_should(client: AsyncClient) -> None:
    recording = await client.runs.stream(await by_a_producer(client)).collect()
    evaluators: list[AnyEvaluator] = [
        MaxToolCalls(2),
        MaxToolCalls(2, include_failed=False),
        ToolCorrectness(["note", "search_web", "broken"], include_failed=True),
    ]
    scores = await evaluate(recording, evaluators)
    assert [score.value for score in scores] == [False, True, True]
    assert scores[0].explanation == "3 tool call(s), budget=2"


async def test_a_failed_run_is_evaluated_by_its_steps(client: AsyncClient) -> None:
    try:
        async with client.runs.start("agent") as run:
            await run.text("I look.")
            raise LookupError("no such city")
    except LookupError:
        pass
    recording = await client.runs.stream(run.id).collect(raise_for_state=False)
    failed = HasMatchingSpan({"name_equals": f"invoke_agent {run.id}", "has_status": "error"})
    scores = await evaluate(recording, [Contains("look"), failed, MaxToolCalls(0), ToolCorrectness(["search_web"])])
    assert [score.value for score in scores] == [True, True, True, False]


async def test_the_reason_and_who_gave_it_are_in_the_score(client: AsyncClient) -> None:
    recording = await client.runs.stream(await by_a_producer(client)).collect()
    asked = Judge({"reason": "It says so.", "pass": True, "score": 1.0})
    (score,) = await evaluate(recording, [LLMJudge("It is cold.", asked.model, include_input=True)])
    assert (score.value, score.explanation, score.evaluator) == (True, "It says so.", "LLMJudge")
    assert score.config == {"rubric": "It is cold.", "model": "function:judge", "include_input": True}
    assert "It is cold in Oslo." in asked.asked[0]
