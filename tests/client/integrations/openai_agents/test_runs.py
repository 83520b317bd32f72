"""Agents of the OpenAI Agents SDK, recorded: whole runs, and what becomes of them without room or a server."""

import asyncio
from typing import Any

import pytest
from agents import Agent, ModelResponse, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from lavant.client import AsyncClient, Client, ProducerOptions, RunState, Usage
from lavant.client.integrations.openai_agents import LavantRunner
from support.openai_agents import calls, log, newest, of_type, one_call, says, scripted, tree
from support.openai_agents import offline as offline
from support.server import ServerProcess


async def test_a_run_is_recorded(client: AsyncClient) -> None:
    @function_tool
    def search(q: str) -> list[str]:
        return [q]

    model = scripted(
        [assistant_message("I look."), function_call("search", {"q": "x"}, call_id="c")],
        assistant_message("It is cold."),
    )
    agent = Agent("weather", model=model, tools=[search])
    result = await LavantRunner(client, labels={"a": "b"}).run(agent, "how is it?", conversation_id="talk")
    run = await newest(client)
    assert (run.name, run.state, run.labels, run.conversation_id) == (
        "weather",
        RunState.SUCCEEDED,
        {"a": "b"},
        "talk",
    )
    assert run.result is not None
    assert run.result.output == result.final_output == "It is cold."
    assert run.result.usage == Usage(input_tokens=10, output_tokens=4, requests=2)
    assert await client.runs.stream(run.id).text() == "I look.It is cold."
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert (used.name, used.arguments, used.result) == ("search", {"q": "x"}, ["x"])
    said, _ = await of_type(client, run, "message_finished")
    assert [part.type for part in said.parts] == ["text", "tool_call"]
    assert said.parts[1].tool_call.tool_call_id == used.id
    assert await tree(client, run) == {"": ["weather"], "weather": ["ScriptedModel", "ScriptedModel", "search"]}
    types = [event.type for event in await log(client, run)]
    assert types[:3] == ["run_started", "step_started", "step_started"]
    assert types.count("progress_reported") == 2


async def test_one_runner_runs_many_agents_at_a_time(client: AsyncClient) -> None:
    both = asyncio.Barrier(2)

    @function_tool
    async def meet() -> None:
        await both.wait()

    runner = LavantRunner(client)
    model = scripted(calls("meet"), calls("meet"), assistant_message("done"), assistant_message("done"))
    agent = Agent("a", model=model, tools=[meet])
    await asyncio.gather(runner.run(agent, "go"), runner.run(agent, "go"))
    runs = [run async for run in client.runs.list()]
    assert len(runs) == 2
    for run in runs:
        assert await tree(client, run) == {"": ["a"], "a": ["ScriptedModel", "ScriptedModel", "meet"]}
        assert await client.runs.stream(run.id).text() == "done"


async def test_run_that_waits_for_approval_succeeds_and_resumes_as_another(client: AsyncClient) -> None:
    @function_tool(needs_approval=True)
    def search() -> str:
        return "x"

    runner, agent = LavantRunner(client), one_call(search)
    waiting = await runner.run(agent, "go")
    first = await newest(client)
    assert first.state is RunState.SUCCEEDED
    assert await tree(client, first) == {"": ["a"], "a": ["ScriptedModel"]}
    state = waiting.to_state()
    state.approve(waiting.interruptions[0])
    assert (await runner.run(agent, state)).final_output == "done"
    second = await newest(client)
    assert second.id != first.id
    assert await tree(client, second) == {"": ["a"], "a": ["ScriptedModel", "search"]}


async def test_an_agent_outlives_the_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    @function_tool
    async def stop_the_server() -> str:
        await server_process.kill()
        return "stopped"

    agent = one_call(stop_the_server)
    options = ProducerOptions(close_timeout=0.1)
    assert (await LavantRunner(process_client, options=options).run(agent, "go")).final_output == "done"


async def test_a_full_queue_of_the_run_around_does_not_fail_the_agent(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.runs.start("outer", on_error="raise", options=ProducerOptions(queue_bytes=2_000)) as outer:

        async def respond(_: object) -> ModelResponse:
            await outer.flush()
            return says(assistant_message("done"))

        agent = Agent("a", model=ScriptedModel([ModelStep.respond(respond)]))
        assert (await LavantRunner(client).run(agent, "long " * 1_000)).final_output == "done"
        await outer.flush()
    assert "is recorded in part" in caplog.text
    assert (await newest(client)).state is RunState.SUCCEEDED


async def test_the_wrong_kind_of_client_costs_the_recording_alone(caplog: pytest.LogCaptureFixture) -> None:
    with Client("127.0.0.1:9") as blocking:
        wrong: Any = blocking
        runner = LavantRunner(wrong)
        agent = Agent("a", model=scripted(assistant_message("done"), assistant_message("done")))
        assert (await runner.run(agent, "go")).final_output == "done"
        async with runner.run_streamed(agent, "go") as streamed:
            async for _ in streamed.stream_events():
                pass
        assert streamed.final_output == "done"
    assert "LavantRunner needs an AsyncClient, not Client" in caplog.text
