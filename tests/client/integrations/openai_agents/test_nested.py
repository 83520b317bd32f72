"""Agents of the OpenAI Agents SDK that other agents begin, by tools, guardrails and handoffs."""

import asyncio
from collections import Counter

import pytest
from agents import Agent, GuardrailFunctionOutput, Runner, function_tool, input_guardrail
from agents.testing import ScriptedModel, assistant_message, function_call

from lavant.client import AsyncClient, ToolCallOutcome, Usage
from lavant.client.integrations.openai_agents import LavantHooks, LavantRunner
from lavant.v1.event_pb2 import StepStarted
from support.openai_agents import calls, log, newest, of_type, one_call, scripted, states, tree
from support.openai_agents import offline as offline


@pytest.mark.parametrize("streamed", [False, True])
async def test_agents_as_tools_nest_in_them(client: AsyncClient, streamed: bool) -> None:
    both_look_up = asyncio.Barrier(2)

    @function_tool
    async def look_up() -> None:
        await both_look_up.wait()

    turns = [calls("look_up"), calls("look_up"), assistant_message("x"), assistant_message("y")]
    expert = Agent("expert", model=scripted(*turns), tools=[look_up])
    hooks = LavantHooks()
    consult = expert.as_tool("consult", "Ask.", hooks=hooks, on_stream=hooks.on_stream if streamed else None)
    asked = [function_call("consult", {"input": "?"}, call_id=f"call-{n}") for n in range(2)]
    chief = Agent("chief", model=scripted(asked, assistant_message("done")), tools=[consult])
    await LavantRunner(client).run(chief, "go")
    assert [run.name async for run in client.runs.list()] == ["chief"]
    run = await newest(client)
    steps: dict[str, StepStarted] = {step.step_id: step for step in await of_type(client, run, "step_started")}
    experts = [step for step in steps.values() if step.name == "expert"]
    assert {steps[step.parent_step_id].name for step in experts} == {"consult"}
    assert len({step.parent_step_id for step in experts}) == len(experts) == 2
    looked = [step for step in steps.values() if step.name == "look_up"]
    assert {step.parent_step_id for step in looked} == {step.step_id for step in experts}
    assert set((await states(client, run)).values()) == {"SUCCEEDED"}
    assert len({used.id async for used in client.runs.stream(run.id).tool_calls}) == 4
    assert Counter(await client.runs.stream(run.id).text(nested=True)) == Counter("xydone")
    assert run.result is not None
    assert run.result.usage == Usage(input_tokens=30, output_tokens=12, requests=6)


async def test_an_agent_that_fails_in_a_tool(client: AsyncClient) -> None:
    expert = Agent("expert", model=ScriptedModel([ValueError("no model")]))
    consult = expert.as_tool("consult", "Ask.", hooks=LavantHooks())
    asked = [function_call("consult", {"input": "?"}, call_id="c")]
    chief = Agent("chief", model=scripted(asked, assistant_message("done")), tools=[consult])
    await LavantRunner(client).run(chief, "go")
    run = await newest(client)
    failed = {name for name, state in (await states(client, run)).items() if state == "FAILED"}
    assert failed >= {"consult", "expert"}
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert used.outcome is ToolCallOutcome.FAILED


async def test_an_agent_that_a_tool_runs_is_a_step_of_it(client: AsyncClient) -> None:
    expert = Agent("expert", model=scripted(assistant_message("x"), assistant_message("y")))
    runner = LavantRunner(client)

    @function_tool
    async def consult() -> str:
        first = await runner.run(expert, "what?")
        second = await Runner.run(expert, "what?", hooks=LavantHooks())
        return str(first.final_output + second.final_output)

    chief = Agent("chief", model=scripted(calls("consult"), assistant_message("done")), tools=[consult])
    await runner.run(chief, "go")
    run = await newest(client)
    assert [run.name async for run in client.runs.list()] == ["chief"]
    assert (await tree(client, run))["consult"] == ["expert", "expert"]
    assert (await client.runs.stream(run.id).text()) == "done"
    assert (await client.runs.stream(run.id).text(nested=True)) == "xydone"


async def test_tool_with_an_unrecorded_agent_that_recovers_succeeds(client: AsyncClient) -> None:
    @function_tool
    def fails() -> None:
        raise ValueError("kaputt")

    consult = one_call(fails).as_tool("consult", "Ask.")
    asked = [function_call("consult", {"input": "?"}, call_id="c")]
    chief = Agent("chief", model=scripted(asked, assistant_message("done")), tools=[consult])
    await LavantRunner(client).run(chief, "go")
    run = await newest(client)
    assert await tree(client, run) == {"": ["chief"], "chief": ["ScriptedModel", "ScriptedModel", "consult"]}
    assert (await states(client, run))["consult"] == "SUCCEEDED"


async def test_tool_whose_agent_waits_for_approval_is_deferred(client: AsyncClient) -> None:
    @function_tool(needs_approval=True)
    def search() -> str:
        return "x"

    consult = one_call(search).clone(name="expert").as_tool("consult", "Ask.", hooks=LavantHooks())
    asked = [function_call("consult", {"input": "?"}, call_id="c")]
    chief = Agent("chief", model=scripted(asked, assistant_message("done")), tools=[consult])
    runner = LavantRunner(client)
    waiting_result = await runner.run(chief, "go")
    first = await newest(client)
    (used,) = [used async for used in client.runs.stream(first.id).tool_calls]
    assert used.outcome is ToolCallOutcome.DENIED
    assert set((await states(client, first)).values()) == {"SUCCEEDED"}
    state = waiting_result.to_state()
    state.approve(waiting_result.interruptions[0])
    assert (await runner.run(chief, state)).final_output == "done"
    second = await newest(client)
    assert set((await states(client, second)).values()) == {"SUCCEEDED"}
    # The SDK does not report the outer tool a second time: what happens in it is beside the agent that called it.
    beside = {"": ["chief", "expert"], "chief": ["ScriptedModel"], "expert": ["ScriptedModel"]}
    assert await tree(client, second) == beside


async def test_nested_agent_with_parallel_guardrails_is_recorded_over_its_turns(client: AsyncClient) -> None:
    @function_tool
    def search() -> str:
        return "x"

    @input_guardrail
    async def passes(*_: object) -> GuardrailFunctionOutput:
        judge = Agent("judge", model=scripted(assistant_message("fine")))
        await Runner.run(judge, "?", hooks=LavantHooks())
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    expert = one_call(search).clone(name="expert", input_guardrails=[passes])
    consult = expert.as_tool("consult", "Ask.", hooks=LavantHooks())
    asked = [function_call("consult", {"input": "?"}, call_id="c")]
    chief = Agent("chief", model=scripted(asked, assistant_message("done")), tools=[consult], input_guardrails=[passes])
    await LavantRunner(client).run(chief, "go")
    run = await newest(client)
    assert await tree(client, run) == {
        "": ["chief", "judge"],
        "judge": ["ScriptedModel"] * 2,
        "chief": ["ScriptedModel", "ScriptedModel", "consult"],
        "consult": ["expert", "judge"],
        "expert": ["ScriptedModel", "ScriptedModel", "search"],
    }
    assert set((await states(client, run)).values()) == {"SUCCEEDED"}


async def test_an_agent_in_a_guardrail_is_closed_with_the_run(client: AsyncClient) -> None:
    @input_guardrail
    async def breaks(*_: object) -> GuardrailFunctionOutput:
        judge = Agent("judge", model=ScriptedModel([ValueError("no model")]))
        await Runner.run(judge, "?", hooks=LavantHooks())
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    with pytest.raises(ValueError, match="no model"):
        await LavantRunner(client).run(
            Agent("a", model=scripted(assistant_message("x")), input_guardrails=[breaks]), "go"
        )
    assert "judge" in await states(client, await newest(client))


async def test_a_handoff_begins_the_next_agent_beside_the_first(client: AsyncClient) -> None:
    expert = Agent("expert", model=scripted(assistant_message("x")))
    handoff = function_call("transfer_to_expert", "{}", call_id="c")
    triage = Agent("triage", model=scripted(handoff), handoffs=[expert])
    async with client.runs.start("outer") as outer:
        result = await LavantRunner(client).run(triage, "go")
    assert result.last_agent is expert
    run = await client.runs.get(outer.id)
    assert await tree(client, run) == {
        "": ["expert", "triage"],
        "triage": ["ScriptedModel"],
        "expert": ["ScriptedModel"],
    }
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert (used.name, used.result) == ("transfer_to_expert", {"assistant": "expert"})
    finished = [event for event in await log(client, run) if event.type == "step_finished" and not event.step_id]
    assert [event.data.output for event in finished] == [{"handed_over_to": "expert"}, "x"]
    assert outer.usage == Usage(input_tokens=10, output_tokens=4, requests=2)
