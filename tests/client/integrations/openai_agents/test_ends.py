"""How runs of the OpenAI Agents SDK end that do not end well: raised, cancelled, left."""

import asyncio
from typing import Literal

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    function_tool,
    input_guardrail,
)
from agents.testing import ScriptedModel, assistant_message

from lavant.client import AsyncClient, RunCancelled, RunState
from lavant.client.integrations.openai_agents import LavantRunner
from support.openai_agents import calls, newest, one_call, scripted, states
from support.openai_agents import offline as offline


async def test_a_run_that_raises_failed(client: AsyncClient) -> None:
    @function_tool
    def search() -> str:
        return "x"

    @input_guardrail
    def trip(*_: object) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    with pytest.raises(MaxTurnsExceeded):
        await LavantRunner(client).run(Agent("a", model=scripted(calls("search")), tools=[search]), "go", max_turns=1)
    first = await newest(client)
    with pytest.raises(InputGuardrailTripwireTriggered):
        await LavantRunner(client).run(
            Agent("b", model=scripted(assistant_message("x")), input_guardrails=[trip]), "go"
        )
    second = await newest(client)
    for run, error in ((first, "MaxTurnsExceeded"), (second, "InputGuardrailTripwireTriggered")):
        assert run.result is not None
        assert run.result.error is not None
        assert (run.state, run.result.error.type) == (RunState.FAILED, f"agents.exceptions.{error}")
        assert (await states(client, run))[run.name] == "FAILED"


async def test_an_error_of_a_stream_that_was_ignored_failed_the_run(client: AsyncClient) -> None:
    async with LavantRunner(client).run_streamed(Agent("a", model=ScriptedModel([ValueError("x")])), "go") as streamed:
        with pytest.raises(ValueError, match="x"):
            async for _ in streamed.stream_events():
                pass
    assert (await newest(client)).state is RunState.FAILED


def waiting(at_work: asyncio.Event) -> Agent[None]:
    """Return an agent whose tool never returns."""

    @function_tool
    async def wait() -> None:
        at_work.set()
        await asyncio.Event().wait()

    return Agent("waiting", model=scripted(calls("wait")), tools=[wait])


ALL_CUT = {"waiting": "CANCELLED", "ScriptedModel": "SUCCEEDED", "wait": "CANCELLED"}


async def test_a_cancelled_task_cancels_the_run(client: AsyncClient) -> None:
    at_work = asyncio.Event()
    running = asyncio.create_task(LavantRunner(client).run(waiting(at_work), "go"))
    await at_work.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    run = await newest(client)
    assert run.state is RunState.CANCELLED
    assert await states(client, run) == ALL_CUT


async def test_cancelling_the_run_cancels_the_agent(client: AsyncClient) -> None:
    at_work = asyncio.Event()
    running = asyncio.create_task(LavantRunner(client).run(waiting(at_work), "go"))
    await at_work.wait()
    await client.runs.cancel((await newest(client)).id, "enough")
    with pytest.raises(RunCancelled, match="enough"):
        await running
    run = await newest(client)
    assert run.state is RunState.CANCELLED
    assert await states(client, run) == ALL_CUT


async def test_cancelling_the_run_ends_the_stream(client: AsyncClient) -> None:
    at_work = asyncio.Event()

    async def read() -> None:
        async with LavantRunner(client).run_streamed(waiting(at_work), "go") as streamed:
            async for _ in streamed.stream_events():
                pass

    reading = asyncio.create_task(read())
    await at_work.wait()
    await client.runs.cancel((await newest(client)).id, "enough")
    with pytest.raises(RunCancelled, match="enough"):
        await reading
    run = await newest(client)
    assert run.state is RunState.CANCELLED
    assert await states(client, run) == ALL_CUT


async def test_a_stream_that_is_left_is_cancelled(client: AsyncClient) -> None:
    at_work = asyncio.Event()
    async with LavantRunner(client).run_streamed(waiting(at_work), "go") as streamed:
        await at_work.wait()
    assert streamed.run_loop_task is not None
    assert streamed.run_loop_task.done()
    run = await newest(client)
    assert run.state is RunState.CANCELLED
    assert await states(client, run) == ALL_CUT


@pytest.mark.parametrize("mode", ["immediate", "after_turn"])
async def test_a_stream_that_the_application_cancels_is_cancelled(
    client: AsyncClient, mode: Literal["immediate", "after_turn"]
) -> None:
    at_work, go_on = asyncio.Event(), asyncio.Event()

    @function_tool
    async def search() -> None:
        at_work.set()
        await go_on.wait()

    async with LavantRunner(client).run_streamed(one_call(search), "go") as streamed:
        await at_work.wait()
        streamed.cancel(mode)
        go_on.set()
        async for _ in streamed.stream_events():
            pass
    run = await newest(client)
    assert run.state is RunState.CANCELLED
    assert (await states(client, run))["a"] == "CANCELLED"
