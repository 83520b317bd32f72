"""Agents of pydantic-ai, recorded."""

import asyncio

import pytest
from pydantic_ai import Agent, AgentRunResult, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability, WrapModelRequestHandler
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred
from pydantic_ai.exceptions import RunCancelled as AgentCancelled
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests

from lavant.client import AsyncClient, Event, ProducerOptions, Run, RunFailed, RunState, ToolCallOutcome, Usage
from lavant.client.event_data import StepStarted
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.pydantic_ai import call, scripted
from support.server import ServerProcess


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
    assert [part.type for part in parts] == ["reasoning", "text", "tool_call"]
    assert parts[2].tool_call
    assert parts[2].tool_call.arguments == {"q": "x"}
    types = [event.type for event in await log(client, run)]
    assert types[:3] == ["run_started", "step_started", "message_started"]
    assert types.count("tool_arguments_delta") == types.count("progress_reported") == 2


class Remembered(AbstractCapability[None]):
    """Answers the first request without the model."""

    async def wrap_model_request(
        self, ctx: RunContext[None], *, request_context: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        if ctx.run_step > 1:
            return await handler(request_context)
        return ModelResponse([ThinkingPart("hm"), TextPart("I look."), ToolCallPart("look", {"q": 1}, "c")])


async def test_a_response_that_does_not_stream_is_recorded_whole(client: AsyncClient) -> None:
    model = TestModel(call_tools=[], custom_output_text="done")
    agent = Agent(model, deps_type=type(None), capabilities=[LavantCapability(client), Remembered()])

    @agent.tool_plain
    def look(q: int) -> int:
        return q

    await agent.run("go", deps=None)
    events = await log(client, await newest(client))
    parts = next(event.data.parts for event in events if event.type == "message_finished")
    assert [part.type for part in parts] == ["reasoning", "text", "tool_call"]
    assert parts[2].tool_call
    assert (parts[1].text, parts[2].tool_call.arguments) == ("I look.", {"q": 1})
    said = "".join(event.data.text for event in events if event.type == "text_delta")
    assert said == "I look.done"


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


async def test_parallel_tools_with_an_error_and_a_cancellation_all_end(client: AsyncClient) -> None:
    expert = Agent(TestModel(custom_output_text="x"), name="expert", capabilities=[LavantCapability(client)])
    model = scripted([call(i, name) for i, name in enumerate(["quick", "consult", "patient", "broken", "asking"])])
    agent = Agent(model, name="chief", capabilities=[LavantCapability(client)])
    others_at_work = asyncio.Barrier(3)

    @expert.tool_plain
    async def think() -> None:
        await others_at_work.wait()
        await asyncio.Event().wait()

    @agent.tool_plain
    async def quick() -> str:
        return "well"

    @agent.tool_plain
    async def asking() -> str:
        raise ModelRetry("again")

    @agent.tool_plain
    async def consult() -> str:
        return (await expert.run("what?")).output

    @agent.tool_plain
    async def patient() -> None:
        await others_at_work.wait()
        await asyncio.Event().wait()

    @agent.tool_plain
    async def broken() -> str:
        await others_at_work.wait()
        raise ValueError("kaputt")

    with pytest.raises(ValueError, match="kaputt"):
        await agent.run("go")
    events = await log(client, await newest(client))
    steps = {event.data.step_id: event.data for event in events if event.type == "step_started"}
    ended = {event.data.step_id: event.data for event in events if event.type == "step_finished"}
    assert ended.keys() == steps.keys()
    states = {steps[step_id].name: step.state for step_id, step in ended.items()}
    assert states == {
        "scripted": RunState.SUCCEEDED,
        "test": RunState.SUCCEEDED,
        "quick": RunState.SUCCEEDED,
        "asking": RunState.FAILED,
        "broken": RunState.FAILED,
        "consult": RunState.CANCELLED,
        "expert": RunState.CANCELLED,
        "think": RunState.CANCELLED,
        "patient": RunState.CANCELLED,
    }
    names = {step.name: steps[step.parent_step_id].name for step in steps.values() if step.parent_step_id}
    assert names == {"expert": "consult", "test": "expert", "think": "expert"}
    begun = [event.data.call.tool_call_id for event in events if event.type == "tool_call_started"]
    finished = [event.data.tool_call_id for event in events if event.type == "tool_call_finished"]
    assert len(begun) == 6
    assert sorted(begun) == sorted(finished)


async def test_agent_may_outlive_the_tool_that_started_it(client: AsyncClient) -> None:
    expert = Agent(TestModel(custom_output_text="x"), name="expert", capabilities=[LavantCapability(client)])
    agent = Agent(scripted([call(0, "begin")], [call(0, "finish")], ["done"]), capabilities=[LavantCapability(client)])
    background: list[asyncio.Task[object]] = []
    at_work, may_finish, may_begin = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @expert.tool_plain
    async def think() -> None:
        at_work.set()
        await may_finish.wait()

    async def late() -> None:
        await may_begin.wait()
        await expert.run("late")

    @agent.tool_plain
    async def begin() -> None:
        background.extend([asyncio.create_task(expert.run("now")), asyncio.create_task(late())])
        await at_work.wait()

    @agent.tool_plain
    async def finish() -> None:
        may_finish.set()
        await background[0]
        may_begin.set()
        await background[1]

    await agent.run("go")
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    events = await log(client, run)
    steps = {event.data.step_id: event.data for event in events if event.type == "step_started"}
    assert steps.keys() == {event.data.step_id for event in events if event.type == "step_finished"}
    begun_in = {
        step.input: steps[step.parent_step_id].name if step.parent_step_id else ""
        for step in steps.values()
        if step.name == "expert"
    }
    assert begun_in == {"now": "begin", "late": ""}


async def test_an_agent_may_outlive_its_run(client: AsyncClient) -> None:
    expert = Agent(TestModel(), name="expert", capabilities=[LavantCapability(client)])
    agent = Agent(TestModel(), capabilities=[LavantCapability(client)])
    background: list[asyncio.Task[AgentRunResult[str]]] = []
    at_work, may_finish = asyncio.Event(), asyncio.Event()

    @expert.tool_plain
    async def think() -> str:
        at_work.set()
        await may_finish.wait()
        return "well"

    @agent.tool_plain
    async def begin() -> None:
        background.append(asyncio.create_task(expert.run("now")))
        await at_work.wait()

    await agent.run("go")
    may_finish.set()
    assert "well" in (await background[0]).output
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    last = (await log(client, run))[-1]
    assert last.type == "run_finished"


async def test_what_is_deferred_is_neither_done_nor_failed(client: AsyncClient) -> None:
    agent = Agent(
        scripted([call(0, "approve"), call(1, "defer")]),
        output_type=[str, DeferredToolRequests],
        capabilities=[LavantCapability(client)],
    )

    @agent.tool_plain
    def approve() -> str:
        raise ApprovalRequired

    @agent.tool_plain
    def defer() -> str:
        raise CallDeferred

    await agent.run("go")
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    used = {used.name: used async for used in client.runs.stream(run.id).tool_calls}
    assert {name: call.outcome for name, call in used.items()} == {
        "approve": ToolCallOutcome.DENIED,
        "defer": ToolCallOutcome.DENIED,
    }
    errors = {name: call.error and call.error.type for name, call in used.items()}
    assert errors == {
        "approve": "pydantic_ai.exceptions.ApprovalRequired",
        "defer": "pydantic_ai.exceptions.CallDeferred",
    }
    finished = [event.data for event in await log(client, run) if event.type == "step_finished"]
    assert not any(step.error for step in finished)


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
    options = ProducerOptions(close_timeout=0.1)
    agent = Agent(TestModel(), capabilities=[LavantCapability(process_client, options=options)])

    @agent.tool_plain
    async def stop_the_server() -> str:
        await server_process.kill()
        return "stopped"

    assert "stopped" in (await agent.run("go")).output


async def test_long_text_after_a_tool_call_is_split(client: AsyncClient) -> None:
    text = "x" * 150_000
    first = [call(1, "look", '{"q":'), {1: DeltaToolCall(json_args=" 1}")}]
    model = scripted(["a", *first, text, text, call(3, "look", '{"q": 2}')], ["done"])
    agent = Agent(model, capabilities=[LavantCapability(client)])

    @agent.tool_plain
    def look(q: int) -> int:
        return q

    await agent.run("go")
    run = await newest(client)
    finished = [event.data for event in await log(client, run) if event.type == "message_finished"]
    parts = [[part.type for part in message.parts] for message in finished]
    assert parts == [["text", "tool_call", "text"], ["text", "tool_call"], ["text"]]
    calls = [part.tool_call for message in finished for part in message.parts if part.tool_call]
    assert [call.arguments for call in calls] == [{"q": 1}, {"q": 2}]
    assert await client.runs.stream(run.id).text() == f"a{text}{text}done"
