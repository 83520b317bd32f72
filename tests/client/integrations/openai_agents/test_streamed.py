"""Answers of the OpenAI Agents SDK, recorded while they are streamed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from agents import Agent, function_tool
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

from lavant.client import AsyncClient, RunState
from lavant.client.integrations.openai_agents import LavantRunner
from support.openai_agents import calls, newest, of_type, says, scripted, states
from support.openai_agents import offline as offline


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
    assert whole.parts[2].tool_call.arguments == {"q": "x"}


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


async def test_events_that_are_read_late_are_not_repeated(client: AsyncClient) -> None:
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


async def test_answer_that_breaks_off_is_recorded_in_part(client: AsyncClient) -> None:
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
