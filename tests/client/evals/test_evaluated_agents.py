"""Agents that an evaluation runs and that record themselves: runs of their own, linked from their rows."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext

from lavant.client import AsyncClient, Evaluation, Usage
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler
from lavant.client.integrations.pydantic_ai import LavantCapability

Task = Callable[[int], Awaitable[Any]]


def dataset(*evaluators: Evaluator[Any, Any, Any]) -> Dataset[Any, Any, Any]:
    cases = [Case[Any, Any, Any](name=f"case {number}", inputs=number) for number in range(3)]
    return Dataset[Any, Any, Any](name="numbers", cases=cases, evaluators=evaluators)


def recorded_by(client: AsyncClient, how: str) -> Task:
    agent = Agent(TestModel(), name="agent", capabilities=[LavantCapability(client)])

    async def capability(number: int) -> str:
        return (await agent.run(str(number))).output

    async def block(number: int) -> int:
        async with client.runs.start("agent", input=number) as run:
            async with client.runs.start("inner"):  # a run within the agent's, which it is no part of
                await run.text("It is cold.")
            run.usage = Usage(input_tokens=5, cost_usd=0.25)
        return number

    async def chain(number: int) -> Any:
        config: Any = {"callbacks": [AsyncLavantCallbackHandler(client)], "run_name": "agent"}
        return await RunnableLambda(str).ainvoke(number, config=config)

    async def task_of_its_own(number: int) -> int:
        return await asyncio.create_task(block(number))

    return {"capability": capability, "block": block, "chain": chain, "task": task_of_its_own}[how]


async def check(client: AsyncClient, evaluation: Evaluation) -> None:
    ids = [row.run_id for row in evaluation.rows]
    assert len(set(ids)) == len(ids) == 3
    for run_id in ids:
        run = await client.runs.wait(run_id, 5)
        assert (run.kind, run.name, run.parent_run_id) == ("agent", "agent", evaluation.id)
    log = [event.type async for event in client.runs.events(evaluation.id)]
    assert set(log) == {"run_started", "row_finished", "progress_reported", "run_finished"}


@pytest.mark.parametrize("how", ["capability", "block", "chain", "task"])
async def test_an_agent_that_records_itself_has_a_run_of_its_own(client: AsyncClient, how: str) -> None:
    await check(client, await client.evaluations.run(dataset(), recorded_by(client, how)))


async def test_a_row_has_the_tokens_and_cost_of_its_agent(client: AsyncClient) -> None:
    evaluation = await client.evaluations.run(dataset(), recorded_by(client, "block"))
    assert [dict(row.metrics) for row in evaluation.rows] == [{"input_tokens": 5.0, "cost_usd": 0.25}] * 3


async def test_an_agent_that_fails_is_linked_too(client: AsyncClient) -> None:
    async def task(number: int) -> None:
        async with client.runs.start("agent"):
            raise LookupError("no such city")

    evaluation = await client.evaluations.run(dataset(), task)
    assert [row.error is not None and row.run_id != "" for row in evaluation.rows] == [True] * 3


async def test_runs_of_evaluators_are_not_the_rows(client: AsyncClient) -> None:
    class Judge(Evaluator[Any, Any, Any]):
        async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
            async with client.runs.start("judge"):
                return True

    async def task(number: int) -> int:
        return number

    evaluation = await client.evaluations.run(dataset(Judge()), task)
    assert [row.run_id for row in evaluation.rows] == [""] * 3
    assert {run.parent_run_id async for run in client.runs.list(names=["judge"])} == {evaluation.id}


async def test_a_run_outside_of_rows_has_no_parent(client: AsyncClient) -> None:
    await client.evaluations.run(dataset(), recorded_by(client, "block"))
    async with client.runs.start("later") as run:
        pass
    assert (await client.runs.get(run.id)).parent_run_id == ""
