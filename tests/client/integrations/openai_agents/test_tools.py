"""The tools of the OpenAI Agents SDK, recorded: beside each other, failing, too slow, refused."""

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    RunHooks,
    Tool,
    ToolGuardrailFunctionOutput,
    function_tool,
    set_tracing_disabled,
    tool_input_guardrail,
)
from agents.exceptions import UserError
from agents.testing import assistant_message

from lavant.client import AsyncClient, ErrorInfo, RunState, ToolCallOutcome
from lavant.client.integrations.openai_agents import LavantRunner
from support.openai_agents import calls, newest, of_type, one_call, scripted, states
from support.openai_agents import offline as offline


async def test_parallel_tools_of_which_one_raises_and_one_is_cancelled(client: AsyncClient) -> None:
    all_at_work = asyncio.Barrier(5)

    def tool_named(name: str, error: BaseException | None = None) -> Tool:
        async def work() -> str:
            await all_at_work.wait()
            if error:
                raise error
            return name

        return function_tool(work, name_override=name)

    tools = [tool_named(name) for name in ("a", "b", "c")]
    tools += [tool_named("fails", ValueError("kaputt")), tool_named("cancelled", asyncio.CancelledError())]
    model = scripted(calls("a", "b", "fails", "c", "cancelled"), assistant_message("done"))
    await LavantRunner(client).run(Agent("chief", model=model, tools=tools), "go")
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    used = {used.name: used async for used in client.runs.stream(run.id).tool_calls}
    assert {name: call.outcome for name, call in used.items()} == {
        **dict.fromkeys("abc", ToolCallOutcome.SUCCEEDED),
        "fails": ToolCallOutcome.FAILED,
        "cancelled": ToolCallOutcome.FAILED,
    }
    assert used["fails"].error == ErrorInfo(type="ValueError", message="kaputt")
    assert await states(client, run) == {
        **dict.fromkeys(("a", "b", "c", "chief", "ScriptedModel"), "SUCCEEDED"),
        "fails": "FAILED",
        "cancelled": "CANCELLED",
    }


async def test_a_tool_that_ends_the_run(client: AsyncClient) -> None:
    at_work = asyncio.Event()

    @function_tool(failure_error_function=None)
    async def fails() -> None:
        await at_work.wait()
        raise ValueError("kaputt")

    @function_tool
    async def waits() -> None:
        at_work.set()
        await asyncio.Event().wait()

    agent = Agent("a", model=scripted(calls("fails", "waits")), tools=[fails, waits])
    with pytest.raises(UserError, match="kaputt"):
        await LavantRunner(client).run(agent, "go")
    run = await newest(client)
    assert run.state is RunState.FAILED
    assert await states(client, run) == {
        "a": "FAILED",
        "ScriptedModel": "SUCCEEDED",
        "fails": "FAILED",
        "waits": "CANCELLED",
    }
    finished = {data.tool_name: data for data in await of_type(client, run, "tool_call_finished")}
    assert finished["fails"].error.type == "ValueError"


async def test_a_tool_that_is_too_slow_failed(client: AsyncClient) -> None:
    @function_tool(timeout=0.001)
    async def slow() -> None:
        await asyncio.Event().wait()

    await LavantRunner(client).run(one_call(slow), "go")
    (used,) = [used async for used in client.runs.stream((await newest(client)).id).tool_calls]
    assert used.outcome is ToolCallOutcome.FAILED


async def test_a_call_that_a_guardrail_refuses_is_denied(client: AsyncClient) -> None:
    @tool_input_guardrail
    def refuse(_: object) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("not now")

    @function_tool(tool_input_guardrails=[refuse])
    def search() -> str:
        return "x"

    await LavantRunner(client).run(
        Agent("a", model=scripted(calls("search"), assistant_message("x")), tools=[search]), "go"
    )
    (used,) = [used async for used in client.runs.stream((await newest(client)).id).tool_calls]
    assert (used.outcome, used.result) == (ToolCallOutcome.DENIED, "not now")


async def test_hooks_and_error_texts_of_the_application_are_kept(client: AsyncClient) -> None:
    told: list[str] = []

    class Own(RunHooks[Any]):
        async def on_tool_end(self, context: object, agent: object, tool: object, result: object) -> None:
            told.append(str(result))

    @function_tool
    def fails() -> None:
        raise ValueError("kaputt")

    agent = one_call(fails)
    config = {"tool_error_formatter": lambda said: f"sorry: {said.error}"}
    await LavantRunner(client).run(agent, "go", hooks=Own(), run_config=config)
    assert told == ["sorry: kaputt"]
    (used,) = [used async for used in client.runs.stream((await newest(client)).id).tool_calls]
    assert used.error == ErrorInfo(type="ValueError", message="kaputt")


async def test_failure_that_a_tool_describes_itself_is_known_while_tracing(client: AsyncClient) -> None:
    @function_tool(failure_error_function=lambda _, error: f"sorry: {error}")
    def fails() -> None:
        raise ValueError("kaputt")

    set_tracing_disabled(False)
    await LavantRunner(client).run(one_call(fails), "go")
    (used,) = [used async for used in client.runs.stream((await newest(client)).id).tool_calls]
    assert used.error is not None
    assert "kaputt" in used.error.message
