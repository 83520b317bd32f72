"""Agents of pydantic-ai, recorded."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import RunCancelled as AgentCancelled
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, Event, ProducerOptions, Run, RunFailed, RunState, ToolCallOutcome, Usage
from lavant.client.integrations.pydantic_ai import LavantCapability
from lavant.v1.event_pb2 import StepStarted
from support.server import ServerProcess

Chunk = str | DeltaToolCalls | DeltaThinkingCalls


def scripted(*turns: Sequence[Chunk]) -> FunctionModel:
    """A model that says these things, one turn a request."""

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[Chunk]:
        for chunk in turns[sum(message.kind == "response" for message in messages)]:
            yield chunk

    return FunctionModel(stream_function=respond, model_name="scripted")


def call(index: int, name: str, arguments: str = "{}") -> DeltaToolCalls:
    return {index: DeltaToolCall(name=name, json_args=arguments, tool_call_id=f"{name}.{index}")}


async def newest(client: AsyncClient) -> Run:
    return await anext(client.runs.list())


async def log(client: AsyncClient, run: Run) -> list[Event]:
    return [event async for event in client.runs.events(run.id, page_size=1_000)]


async def started_steps(client: AsyncClient, run: Run) -> list[StepStarted]:
    return [event.data for event in await log(client, run) if event.type == "step_started"]


async def test_a_run_is_recorded_as_it_streams(client: AsyncClient) -> None:
    model = scripted(
        [
            {0: DeltaThinkingPart(content="hm ")},
            "I ",
            "look.",
            call(2, "search", '{"q":'),
            {2: DeltaToolCall(json_args='"x"}')},
        ],
        ["It is ", "cold."],
    )
    agent = Agent(model, name="weather", capabilities=[LavantCapability(client, labels={"a": "b"})])

    @agent.tool_plain
    def search(q: str) -> list[str]:
        return [q]

    result = await agent.run("how is it?")
    run = await newest(client)
    assert (run.name, run.state, run.labels) == ("weather", RunState.SUCCEEDED, {"a": "b"})
    assert run.result is not None
    assert run.result.output == result.output == "It is cold."
    assert run.result.usage == Usage(
        input_tokens=result.usage.input_tokens, output_tokens=result.usage.output_tokens, requests=2
    )
    assert await client.runs.stream(run.id).text() == "I look.It is cold."
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert (used.name, used.arguments, used.result) == ("search", {"q": "x"}, ["x"])
    first_message = next(event for event in await log(client, run) if event.type == "message_finished")
    parts = first_message.data.parts
    assert [part.WhichOneof("content") for part in parts] == ["reasoning", "text", "tool_call"]
    assert parts[2].tool_call.arguments_json == '{"q":"x"}'
    types = [event.type for event in await log(client, run)]
    assert types[:3] == ["run_started", "step_started", "message_started"]
    assert types.count("tool_arguments_delta") == types.count("progress_reported") == 2


async def test_parallel_tools_and_their_agents_nest(client: AsyncClient) -> None:
    expert = Agent(TestModel(custom_output_text="ask"), name="expert", capabilities=[LavantCapability(client)])
    both_look_up = asyncio.Barrier(2)

    @expert.tool_plain
    async def look_up() -> None:
        await both_look_up.wait()

    model = scripted([call(0, "consult"), call(1, "consult")], ["done"])
    agent = Agent(model, name="chief", capabilities=[LavantCapability(client)])
    both_at_work = asyncio.Barrier(2)

    @agent.tool_plain
    async def consult() -> str:
        await both_at_work.wait()
        return (await expert.run("what?")).output

    await agent.run("go")
    assert [run.name async for run in client.runs.list()] == ["chief"]
    steps = {step.step_id: step for step in await started_steps(client, await newest(client))}
    experts = [step for step in steps.values() if step.name == "expert"]
    assert {steps[step.parent_step_id].name for step in experts} == {"consult"}
    assert len({step.parent_step_id for step in experts}) == 2
    calls = [event.data.call for event in await log(client, await newest(client)) if event.type == "tool_call_started"]
    assert sorted(call.tool_name for call in calls) == ["consult", "consult", "look_up", "look_up"]
    assert len({call.tool_call_id for call in calls}) == 4


async def test_every_tool_call_is_closed(client: AsyncClient) -> None:
    model = scripted(
        [call(0, "fussy"), call(1, "typed", '{"n": "no number"}'), call(2, "unknown", '{"cut')],
        [call(0, "broken")],
    )
    agent = Agent(model, capabilities=[LavantCapability(client)])

    @agent.tool_plain
    def fussy() -> str:
        raise ModelRetry("again")

    @agent.tool_plain
    def typed(n: int) -> int:
        return n

    @agent.tool_plain
    def broken() -> str:
        raise ValueError("kaputt")

    with pytest.raises(ValueError, match="kaputt"):
        await agent.run("go")
    run = await newest(client)
    assert run.state is RunState.FAILED
    calls = client.runs.stream(run.id).tool_calls
    outcomes = {used.name: used.outcome for used in [await anext(calls) for _ in range(4)]}
    with pytest.raises(RunFailed):
        await anext(calls)
    assert outcomes == {
        "fussy": ToolCallOutcome.RETRY_REQUESTED,
        "typed": ToolCallOutcome.RETRY_REQUESTED,
        "unknown": ToolCallOutcome.RETRY_REQUESTED,
        "broken": ToolCallOutcome.FAILED,
    }


async def test_within_a_run_an_agent_is_a_step(client: AsyncClient) -> None:
    agent = Agent(TestModel(custom_output_text="x"), name="inner", capabilities=[LavantCapability(client)])
    async with client.runs.start("outer") as run:
        await agent.run("go")
    steps = [step.name for step in await started_steps(client, await client.runs.get(run.id))]
    assert steps == ["inner", "test"]
    assert run.usage is not None
    assert run.usage.requests == 1


async def test_cancelling_the_run_cancels_the_agent(client: AsyncClient) -> None:
    agent = Agent(TestModel(), capabilities=[LavantCapability(client, run_id="r")])
    at_work = asyncio.Event()

    @agent.tool_plain
    async def wait() -> None:
        at_work.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(agent.run("go"))
    await at_work.wait()
    await client.runs.cancel("r", "enough")
    with pytest.raises(AgentCancelled):
        await running
    result = (await client.runs.get("r")).result
    assert result is not None
    assert result.state is RunState.CANCELLED
    assert result.error is not None
    assert result.error.message == "enough"


async def test_an_agent_outlives_the_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    options = ProducerOptions(strict=False, close_timeout=0.1)
    agent = Agent(TestModel(), capabilities=[LavantCapability(process_client, options=options)])

    @agent.tool_plain
    async def stop_the_server() -> str:
        await server_process.kill()
        return "stopped"

    assert "stopped" in (await agent.run("go")).output
