"""Agents of the OpenAI Agents SDK, recorded."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelResponse,
    RunHooks,
    Runner,
    Tool,
    ToolGuardrailFunctionOutput,
    function_tool,
    input_guardrail,
    set_trace_processors,
    set_tracing_disabled,
    tool_input_guardrail,
)
from agents import Usage as AgentUsage
from agents.exceptions import UserError
from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseOutputItemAddedEvent,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseTextDeltaEvent,
)
from openai.types.responses.response_reasoning_item import Summary

from lavant.client import (
    AsyncClient,
    ErrorInfo,
    Event,
    ProducerOptions,
    Run,
    RunCancelled,
    RunState,
    ToolCallOutcome,
    Usage,
)
from lavant.client.integrations.openai_agents import LavantHooks, LavantRunner
from lavant.v1 import run_pb2
from lavant.v1.event_pb2 import StepFinished, StepStarted
from support.server import ServerProcess

USAGE = AgentUsage(requests=1, input_tokens=5, output_tokens=2, total_tokens=7)


@pytest.fixture(autouse=True)
def _offline() -> Iterator[None]:
    """Keep the SDK from exporting its traces."""
    set_trace_processors([])
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(True)


def says(*output: TResponseOutputItem) -> ModelResponse:
    return ModelResponse(output=list(output), usage=USAGE, response_id=None)


def scripted(*turns: TResponseOutputItem | list[TResponseOutputItem]) -> ScriptedModel:
    """A model that answers with these items, one turn a request."""
    return ScriptedModel([says(*turn) if isinstance(turn, list) else says(turn) for turn in turns])


def one_call(*tools: Tool) -> Agent[None]:
    """An agent that calls its tools once, and is done."""
    model = scripted(calls(*(tool.name for tool in tools)), assistant_message("done"))
    return Agent("a", model=model, tools=list(tools))


def calls(*names: str) -> list[TResponseOutputItem]:
    return [function_call(name, "{}", call_id=f"call-{index}") for index, name in enumerate(names)]


async def newest(client: AsyncClient) -> Run:
    return await anext(client.runs.list())


async def log(client: AsyncClient, run: Run) -> list[Event]:
    return [event async for event in client.runs.events(run.id, page_size=1_000)]


async def of_type(client: AsyncClient, run: Run, kind: str) -> list[Any]:
    return [event.data for event in await log(client, run) if event.type == kind]


async def tree(client: AsyncClient, run: Run) -> dict[str, list[str]]:
    """Each step's name, and the sorted names of the steps in it; under the empty name, the run's own."""
    steps: list[StepStarted] = await of_type(client, run, "step_started")
    names = {"": "", **{step.step_id: step.name for step in steps}}
    found: dict[str, list[str]] = {}
    for step in steps:
        found.setdefault(names[step.parent_step_id], []).append(step.name)
    return {name: sorted(inner) for name, inner in found.items()}


async def states(client: AsyncClient, run: Run) -> dict[str, str]:
    """How each step ended, by its name."""
    names = {step.step_id: step.name for step in await of_type(client, run, "step_started")}
    finished: list[StepFinished] = await of_type(client, run, "step_finished")
    assert {step.step_id for step in finished} == names.keys()
    return {names[step.step_id]: run_pb2.RunState.Name(step.state).removeprefix("RUN_STATE_") for step in finished}


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
    assert [part.WhichOneof("content") for part in said.parts] == ["text", "tool_call"]
    assert said.parts[1].tool_call.tool_call_id == used.id
    assert await tree(client, run) == {"": ["weather"], "weather": ["ScriptedModel", "ScriptedModel", "search"]}
    types = [event.type for event in await log(client, run)]
    assert types[:3] == ["run_started", "step_started", "step_started"]
    assert types.count("progress_reported") == 2


def completed(*output: TResponseOutputItem) -> ResponseCompletedEvent:
    response = Response(
        id="r",
        created_at=0,
        model="m",
        object="response",
        output=list(output),
        tool_choice="none",
        tools=[],
        parallel_tool_calls=False,
    )
    return ResponseCompletedEvent(type="response.completed", sequence_number=0, response=response)


def text_delta(text: str) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta",
        delta=text,
        content_index=0,
        item_id="m",
        output_index=1,
        sequence_number=0,
        logprobs=[],
    )


async def test_text_reasoning_and_arguments_are_live(client: AsyncClient) -> None:
    go_on = asyncio.Event()
    thought = ResponseReasoningItem(id="t", type="reasoning", summary=[Summary(text="hm ok", type="summary_text")])
    called = function_call("search", '{"q": "x"}', call_id="c")

    async def speak(_: object) -> AsyncIterator[TResponseStreamEvent]:
        yield ResponseReasoningSummaryTextDeltaEvent(
            type="response.reasoning_summary_text.delta",
            delta="hm ",
            item_id="t",
            output_index=0,
            summary_index=0,
            sequence_number=0,
        )
        yield text_delta("I ")
        yield ResponseOutputItemAddedEvent(
            type="response.output_item.added",
            item=function_call("search", "", call_id="c"),
            output_index=2,
            sequence_number=0,
        )
        yield ResponseFunctionCallArgumentsDeltaEvent(
            type="response.function_call_arguments.delta",
            delta='{"q": ',
            item_id="c",
            output_index=2,
            sequence_number=0,
        )
        await go_on.wait()
        yield text_delta("look.")
        yield completed(thought, assistant_message("I look."), called)

    @function_tool
    def search(q: str) -> str:
        return q

    agent = Agent("a", model=ScriptedModel([ModelStep.stream(speak), says(assistant_message("Done."))]), tools=[search])
    seen: list[str] = []

    async def read(run_id: str) -> None:
        async with client.runs.stream(run_id) as stream:
            async for event in stream:
                seen.append(event.type)
                if event.type == "tool_arguments_delta":
                    go_on.set()

    async with LavantRunner(client).run_streamed(agent, "hi") as streamed:
        reading = asyncio.create_task(read((await newest(client)).id))
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output == "Done."
    await reading
    assert seen[3:7] == ["message_started", "reasoning_delta", "text_delta", "tool_arguments_delta"]
    run = await newest(client)
    assert await client.runs.stream(run.id).text() == "I look.Done."
    reasoning = await of_type(client, run, "reasoning_delta")
    assert "".join(delta.text for delta in reasoning) == "hm ok"
    whole = (await of_type(client, run, "message_finished"))[0]
    assert "".join(part.text for part in whole.parts) == "I look."
    assert whole.parts[2].tool_call.arguments_json == '{"q": "x"}'


async def test_what_is_read_late_is_not_said_twice(client: AsyncClient) -> None:
    @function_tool
    def search() -> str:
        return "x"

    agent = Agent(
        "a", model=scripted([assistant_message("One. "), *calls("search")], assistant_message("Two.")), tools=[search]
    )
    async with LavantRunner(client).run_streamed(agent, "hi") as streamed:
        assert streamed.run_loop_task is not None
        await streamed.run_loop_task
        async for _ in streamed.stream_events():
            pass
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    assert await client.runs.stream(run.id).text() == "One. Two."


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
    assert Counter(await client.runs.stream(run.id).text()) == Counter("xydone")
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
    assert (await client.runs.stream(run.id).text()) == "xydone"


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
    assert [event.data.output_json for event in finished] == ['{"handed_over_to":"expert"}', '"x"']
    assert outer.usage == Usage(input_tokens=10, output_tokens=4, requests=2)


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
    """An agent whose tool waits for ever."""

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


async def test_hooks_and_error_texts_of_the_application_go_on(client: AsyncClient) -> None:
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
    assert "not recorded any further" in caplog.text
    assert (await newest(client)).state is RunState.SUCCEEDED


async def test_a_failure_that_a_tool_words_itself_is_known_while_the_sdk_traces(client: AsyncClient) -> None:
    @function_tool(failure_error_function=lambda _, error: f"sorry: {error}")
    def fails() -> None:
        raise ValueError("kaputt")

    set_tracing_disabled(False)
    await LavantRunner(client).run(one_call(fails), "go")
    (used,) = [used async for used in client.runs.stream((await newest(client)).id).tool_calls]
    assert used.error is not None
    assert "kaputt" in used.error.message


async def test_a_tool_is_not_blamed_for_what_an_unrecorded_agent_in_it_got_over(client: AsyncClient) -> None:
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


async def test_a_run_that_waits_for_approval_ends_well_and_is_resumed_as_another(client: AsyncClient) -> None:
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


async def test_an_agent_within_is_recorded_over_its_turns_though_guardrails_run_beside(client: AsyncClient) -> None:
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


async def test_each_response_gets_the_deltas_of_its_own(client: AsyncClient) -> None:
    @function_tool
    def search() -> str:
        return "x"

    read = asyncio.Event()

    async def speak(first: str, second: str, whole: list[TResponseOutputItem]) -> AsyncIterator[TResponseStreamEvent]:
        yield text_delta(first)
        await read.wait()
        read.clear()
        yield text_delta(second)
        await read.wait()
        read.clear()
        yield completed(*whole)

    turns = [
        ModelStep.stream(lambda _: speak("One", ".", [assistant_message("One."), *calls("search")])),
        ModelStep.stream(lambda _: speak("Two", "!", [assistant_message("Two!")])),
    ]
    agent = Agent("a", model=ScriptedModel(turns), tools=[search])
    async with LavantRunner(client).run_streamed(agent, "hi") as streamed:
        async for event in streamed.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                read.set()
    deltas = [(delta.text, delta.message_id) for delta in await of_type(client, await newest(client), "text_delta")]
    assert [text for text, _ in deltas] == ["One", ".", "Two", "!"]
    assert deltas[0][1] == deltas[1][1] != deltas[2][1] == deltas[3][1]


async def test_an_answer_that_breaks_off_is_kept_as_far_as_it_came(client: AsyncClient) -> None:
    read = asyncio.Event()

    async def speak(_: object) -> AsyncIterator[TResponseStreamEvent]:
        yield text_delta("It is")
        await read.wait()
        raise ConnectionError("cut")

    async def ask() -> None:
        async with LavantRunner(client).run_streamed(
            Agent("a", model=ScriptedModel([ModelStep.stream(speak)])), "hi"
        ) as s:
            async for _ in s.stream_events():
                read.set()

    with pytest.raises(ConnectionError):
        await ask()
    run = await newest(client)
    assert await states(client, run) == {"a": "FAILED", "ScriptedModel": "FAILED"}
    (message,) = await of_type(client, run, "message_finished")
    assert (message.parts[0].text, message.finish_reason) == ("It is", "error")


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


async def test_a_tool_whose_agent_waits_for_approval_is_put_off(client: AsyncClient) -> None:
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
    # The SDK does not say again that the outer tool began: what goes on in it is beside the agent that called it.
    beside = {"": ["chief", "expert"], "chief": ["ScriptedModel"], "expert": ["ScriptedModel"]}
    assert await tree(client, second) == beside
