"""Deep agents of pydantic-deep, recorded and streamed."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_deep import DeepAgentDeps, create_deep_agent  # type: ignore[import-untyped]

from lavant.client import AsyncClient, Event, Run, RunState
from lavant.client.event_data import StepStarted
from lavant.client.integrations.agent_streaming import StreamEventType, run_stream
from lavant.client.integrations.pydantic_ai import LavantCapability
from lavant.client.integrations.pydantic_deep import DeepAgentCapability

TODO = {"content": "Measure", "active_form": "Measuring", "status": "pending"}


def calling(*turns: Sequence[tuple[str, object]]) -> FunctionModel:
    """A model that calls these tools, one turn a request, and then says that it is done."""

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        turn = sum(message.kind == "response" for message in messages)
        if turn == len(turns):
            yield "done"
            return
        for index, (name, arguments) in enumerate(turns[turn]):
            yield {index: DeltaToolCall(name=name, json_args=json.dumps(arguments), tool_call_id=f"{turn}.{index}")}

    return FunctionModel(stream_function=respond)


def delegating(to: str, mode: str = "sync") -> tuple[str, object]:
    return "task", {"description": "look", "subagent_type": to, "mode": mode}


def deep_agent(client: AsyncClient | None, model: Model, **options: Any) -> Agent[DeepAgentDeps, str]:
    capabilities = [DeepAgentCapability(client)] if client else []
    return create_deep_agent(  # type: ignore[no-any-return]
        model=model,
        name="deep",
        web_search=False,
        web_fetch=False,
        thinking=False,
        include_skills=False,
        include_memory=False,
        cost_tracking=False,
        capabilities=capabilities,
        **options,
    )


def subagent(name: str, model: Model) -> dict[str, object]:
    return {"name": name, "description": "Helps", "instructions": "Help.", "model": model}


async def recorded(client: AsyncClient) -> tuple[Run, list[Event]]:
    """The only run, and its log."""
    (run,) = [run async for run in client.runs.list()]
    return run, [event async for event in client.runs.events(run.id, page_size=1_000)]


def steps_of(log: list[Event]) -> dict[str, StepStarted]:
    return {event.data.step_id: event.data for event in log if event.type == "step_started"}


def way_to(name: str, steps: dict[str, StepStarted]) -> list[str]:
    """The names of the steps around the step of this name, from within."""
    (step,) = [step for step in steps.values() if step.name == name]
    names = []
    while step.parent_step_id:
        step = steps[step.parent_step_id]
        names.append(step.name)
    return names


def all_closed(log: list[Event]) -> bool:
    begun = {event.data.step_id for event in log if event.type == "step_started"}
    return begun == {event.data.step_id for event in log if event.type == "step_finished"}


async def test_todos_are_a_state_of_the_run(client: AsyncClient) -> None:
    model = calling([("write_todos", {"todos": [TODO]})], [("read_todos", {})])
    deps = DeepAgentDeps()
    result = await deep_agent(client, model).run("go", deps=deps)
    run, log = await recorded(client)
    assert (run.name, run.state, result.output) == ("deep", RunState.SUCCEEDED, "done")
    (state,) = [event.data for event in log if event.type == "state_snapshot"]
    assert (state.name, state.value) == ("todos", [todo.model_dump() for todo in deps.todos])
    assert state.value[0]["content"] == "Measure"
    assert [call.name async for call in client.runs.stream(run.id).tool_calls] == ["write_todos", "read_todos"]
    assert all_closed(log)


async def test_subagents_are_steps_of_the_tools_that_gave_the_task(client: AsyncClient) -> None:
    helper = subagent("helper", calling([("write_todos", {"todos": [TODO]})]))
    other = {**subagent("other", TestModel(call_tools=[], custom_output_text="fine")), "max_retries": 0}
    model = calling([delegating("helper"), delegating("other")])
    agent = deep_agent(client, model, subagents=[helper, other])
    for _ in range(2):  # a second run must not put a second layer around them
        result = await agent.run("go", deps=DeepAgentDeps())
        newest = await anext(client.runs.list())
        log = [event async for event in client.runs.events(newest.id, page_size=1_000)]
        steps = steps_of(log)
        assert way_to("helper", steps) == way_to("other", steps) == ["task"]
        assert way_to("write_todos", steps) == ["helper", "task"]
        (state,) = [event.data for event in log if event.type == "state_snapshot"]
        assert state.name == "todos/helper"
        assert newest.result is not None
        assert newest.result.usage is not None
        assert newest.result.usage.requests == 5 > result.usage.requests
        assert all_closed(log)


async def test_a_subagent_in_the_background_stays_in_the_log(client: AsyncClient) -> None:
    """The tool that begins it returns at once, before or after the subagent has begun."""
    main_goes_on = asyncio.Event()
    helper = Agent(calling([("wait", {})]))

    @helper.tool_plain
    async def wait() -> None:
        await main_goes_on.wait()

    agent = deep_agent(
        client,
        calling([delegating("helper", "async")], [("proceed", {})]),
        subagents=[{**subagent("helper", TestModel()), "agent": helper}],
    )

    @agent.tool_plain
    async def proceed() -> None:
        main_goes_on.set()
        await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name().startswith("subagent-")])

    await agent.run("go", deps=DeepAgentDeps())
    run, log = await recorded(client)
    assert run.state is RunState.SUCCEEDED
    steps = steps_of(log)
    assert way_to("wait", steps)[0] == "helper"
    ended = [steps[event.data.step_id].name for event in log if event.type == "step_finished"]
    assert ended.index("wait") < ended.index("helper") < ended.index("proceed")
    assert all_closed(log)


async def test_a_subagent_that_records_itself_is_recorded_once(client: AsyncClient) -> None:
    own = Agent(TestModel(custom_output_text="fine"), name="own", capabilities=[LavantCapability(client)])
    agent = deep_agent(client, calling([delegating("own")]), subagents=[{**subagent("own", TestModel()), "agent": own}])
    await agent.run("go", deps=DeepAgentDeps())
    _, log = await recorded(client)
    assert way_to("own", steps_of(log)) == ["task"]


async def test_a_subagent_that_fails_fails_as_a_step(client: AsyncClient) -> None:
    helper = Agent(calling([("break", {})]))

    @helper.tool_plain(name="break")
    def broken() -> None:
        raise ValueError("kaputt")

    agent = deep_agent(
        client, calling([delegating("helper")]), subagents=[{**subagent("helper", TestModel()), "agent": helper}]
    )
    await agent.run("go", deps=DeepAgentDeps())
    run, log = await recorded(client)
    assert run.state is RunState.SUCCEEDED
    steps = steps_of(log)
    failed = [event.data for event in log if event.type == "step_finished" and event.data.error]
    assert [steps[step.step_id].name for step in failed] == ["break", "helper", "task"]
    assert all_closed(log)


async def test_a_deep_agent_streams() -> None:
    agent = deep_agent(None, TestModel(call_tools=["write_todos"], custom_output_text="all done"))
    deps = DeepAgentDeps()
    events = [event async for event in run_stream(agent, "go", deps)]
    assert [event.event_type.value for event in events] == [
        "agent_start",
        "progress",
        "tool_start",
        "tool_end",
        "llm_chunk",
        "llm_chunk",
        "progress",
        "agent_end",
    ]
    assert events[0].data == {"agent_name": "deep", "prompt": "go"}
    assert (events[3].data["tool_name"], events[3].data["outcome"], len(deps.todos)) == ("write_todos", "success", 1)


async def test_a_recorded_deep_agent_streams_too(client: AsyncClient) -> None:
    helper = subagent("helper", TestModel(call_tools=[], custom_output_text="fine"))
    agent = deep_agent(client, calling([delegating("helper")]), subagents=[helper])
    async with run_stream(agent, "go", DeepAgentDeps()) as stream:
        outcomes = [event.data["outcome"] async for event in stream if event.event_type is StreamEventType.TOOL_END]
    assert outcomes == ["success"]
    run, log = await recorded(client)
    assert run.state is RunState.SUCCEEDED
    assert way_to("helper", steps_of(log)) == ["task"]


async def test_subagents_of_a_run_that_is_not_recorded_are_not_recorded(client: AsyncClient) -> None:
    helper = subagent("helper", TestModel(call_tools=[], custom_output_text="fine"))
    agent = deep_agent(None, calling([delegating("helper")]), subagents=[helper])
    await agent.run("go", deps=DeepAgentDeps(), capabilities=[DeepAgentCapability(client)])
    assert [event async for event in run_stream(agent, "go", DeepAgentDeps())]
    assert [run.name async for run in client.runs.list()] == ["deep"]


async def test_a_capability_given_to_the_run_records_todos_and_subagents_too(client: AsyncClient) -> None:
    helper = subagent("helper", TestModel(call_tools=[], custom_output_text="fine"))
    agent = deep_agent(
        client, calling([("write_todos", {"todos": [TODO]})], [delegating("helper")]), subagents=[helper]
    )
    async with run_stream(agent, "go", DeepAgentDeps(), client=client, run_id="given") as stream:
        assert "agent_end" in [event.event_type async for event in stream]
    run, log = await recorded(client)
    assert (run.id, run.state) == ("given", RunState.SUCCEEDED)
    assert way_to("helper", steps_of(log)) == ["task"]
    assert [event.data.name for event in log if event.type == "state_snapshot"] == ["todos"]
    await agent.run("go", deps=DeepAgentDeps(), capabilities=[DeepAgentCapability(client, run_id="deep")])
    states = [event async for event in client.runs.events("deep") if event.type == "state_snapshot"]
    assert len(states) == 1


async def test_deps_whose_todos_cannot_be_read_fail_no_agent(client: AsyncClient) -> None:
    class Broken(DeepAgentDeps):  # type: ignore[misc]
        @property
        def todos(self) -> list[object]:
            raise OSError("no such table")

        @todos.setter
        def todos(self, value: object) -> None:
            pass

    agent = Agent(calling([("look", {})]), deps_type=Broken, capabilities=[DeepAgentCapability(client)])

    @agent.tool_plain
    def look() -> str:
        return "cold"

    assert (await agent.run("go", deps=Broken())).output == "done"
    run, _ = await recorded(client)
    assert run.state is RunState.SUCCEEDED
