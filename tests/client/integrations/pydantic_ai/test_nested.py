"""Several recorders of one agent, and agents within agents: what belongs to whom, and counts once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import RunCancelled as AgentCancelled
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCalls, FunctionModel

from lavant.client import AsyncClient, Recording, RunState, StepKind, Usage
from lavant.client.integrations.agent_streaming import run_stream
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.pydantic_ai import call, scripted, turn_of


def weather_agent(*capabilities: LavantCapability[None]) -> Agent[None, str]:
    model = scripted(["Let me look. ", call(0, "search"), call(1, "search")], ["It is cold."])
    agent = Agent(model, name="weather", deps_type=type(None), capabilities=capabilities)

    @agent.tool_plain
    def search() -> str:
        return "-3 C"

    return agent


async def read(client: AsyncClient, run_id: str) -> Recording:
    return await client.runs.stream(run_id).collect(raise_for_state=False)


@pytest.mark.parametrize("through", ["run", "run_stream"])
async def test_the_capability_given_to_the_run_records_it_alone(client: AsyncClient, through: str) -> None:
    own = LavantCapability[None](client, name="own", run_id="own", labels={"of": "agent"})
    agent = weather_agent(own)
    if through == "run":
        given = LavantCapability[None](client, run_id="given", labels={"of": "run"})
        await agent.run("go", deps=None, capabilities=[given])
    else:
        async with run_stream(agent, "go", client=client, run_id="given", labels={"of": "run"}) as stream:
            assert stream.run is None
            assert "agent_end" in [event.event_type async for event in stream]
        assert stream.run is not None
        assert stream.run.id == "given"
    (run,) = [run async for run in client.runs.list()]
    assert (run.id, run.name, run.labels) == ("given", "weather", {"of": "run"})
    recording = await read(client, "given")
    assert recording.text == "Let me look. It is cold."
    assert [call.name for call in recording.tool_calls] == ["search", "search"]
    assert [step.kind for step in recording.steps] == ["model_request", "tool", "tool", "model_request"]
    assert recording.usage.requests == 2


async def test_of_two_capabilities_of_an_agent_the_last_one_records_it(client: AsyncClient) -> None:
    one, other = LavantCapability[None](client, run_id="one"), LavantCapability[None](client, run_id="other")
    await weather_agent(one, other).run("go", deps=None)
    assert [run.id async for run in client.runs.list()] == ["other"]


async def test_what_nested_agents_use_counts_once_and_in_their_own_steps(client: AsyncClient) -> None:
    expert = weather_agent(LavantCapability(client))
    chief = Agent(
        scripted(["I ask. ", call(0, "consult")], ["Cold."], name="chief-model"),
        name="chief",
        capabilities=[LavantCapability(client, run_id="r")],
    )

    @chief.tool_plain
    async def consult() -> str:
        return (await expert.run("how is it?", deps=None)).output

    result = await chief.run("go")
    recording = await read(client, "r")
    requests = [step for root in recording.steps for step in root.walk() if step.kind is StepKind.MODEL_REQUEST]
    others = [step for root in recording.steps for step in root.walk() if step.kind is not StepKind.MODEL_REQUEST]
    used = [step.usage for step in requests if step.usage is not None]
    assert [usage.requests for usage in used] == [1, 1, 1, 1]
    assert [step.usage for step in others] == [None] * len(others)
    assert sum(used, Usage()) == recording.result.usage
    chiefs = [step for step in recording.steps if step.name == "chief-model"]
    assert sum(step.usage.total_tokens for step in chiefs if step.usage) == result.usage.total_tokens
    assert [step.text for step in chiefs] == ["I ask. ", "Cold."]
    (agent_step,) = [step for step in others if step.name == "weather"]
    assert [step.text for step in agent_step.children] == ["Let me look. ", "", "", "It is cold."]
    progress = [event for event in recording.events if event.type == "progress_reported"]
    assert [event.step_id for event in progress] == ["", agent_step.id, agent_step.id, ""]
    assert [event.data.iteration for event in progress] == [1, 1, 2, 2]
    assert progress[-1].data.usage == recording.result.usage


async def test_usage_of_a_run_that_was_abandoned_is_what_its_requests_used(client: AsyncClient) -> None:
    expert = weather_agent(LavantCapability(client))
    at_work = asyncio.Event()

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[DeltaToolCalls]:
        if turn_of(messages):
            at_work.set()
            await asyncio.Event().wait()
        yield call(0, "consult")

    chief = Agent(FunctionModel(stream_function=respond), capabilities=[LavantCapability(client, run_id="r")])

    @chief.tool_plain
    async def consult() -> str:
        return (await expert.run("how is it?", deps=None)).output

    running = asyncio.create_task(chief.run("go"))
    await at_work.wait()
    seen = []
    async with client.runs.stream("r") as stream:
        async for event in stream:
            seen.append(event)
            if event.type == "step_started" and sum(each.type == "step_finished" for each in seen) == 7:
                break
    told = [event.data.usage for event in seen if event.type == "progress_reported"]
    steps = [event.data.usage for event in seen if event.type == "step_finished" and event.data.usage]
    assert sum(steps, Usage()) == told[-1]
    assert told[-1].requests == 3
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("how", ["once", "twice", "context"])
async def test_a_cancelled_agent_ends_its_run_and_all_that_is_open(client: AsyncClient, how: str) -> None:
    expert = Agent(scripted(["Hm. ", call(0, "think")]), name="expert", capabilities=[LavantCapability(client)])
    chief = Agent(scripted([call(0, "consult")]), name="chief", capabilities=[LavantCapability(client, run_id="r")])
    at_work = asyncio.Event()

    @expert.tool_plain
    async def think() -> None:
        at_work.set()
        await asyncio.Event().wait()

    @chief.tool_plain
    async def consult() -> str:
        return (await expert.run("what?")).output

    running = asyncio.create_task(chief.run("go"))
    await at_work.wait()
    if how == "context":
        await client.runs.cancel("r", "enough")
    else:
        running.cancel()
        if how == "twice":
            await asyncio.sleep(0)
            running.cancel()
    with pytest.raises((asyncio.CancelledError, AgentCancelled)):
        await running
    recording = await read(client, "r")
    assert recording.result.state is RunState.CANCELLED
    steps = {step.name: step.state for root in recording.steps for step in root.walk()}
    assert steps == {
        "scripted": RunState.SUCCEEDED,
        "consult": RunState.CANCELLED,
        "expert": RunState.CANCELLED,
        "think": RunState.CANCELLED,
    }
    assert [call.outcome for call in recording.tool_calls] == ["failed", "failed"]
