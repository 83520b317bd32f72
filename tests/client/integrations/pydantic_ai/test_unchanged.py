"""A recorder changes nothing: agents of pydantic-ai get the same with it and without, whatever passes through them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel
from pydantic_core import to_jsonable_python

from lavant.client import AsyncClient, RunState
from lavant.client.integrations.agent_streaming import collect_stream_result
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.pydantic_ai import RateLimited, call, scripted, whole


def messages_of(history: list[ModelMessage]) -> Any:
    """What was said, without what differs in each run: times and IDs of runs."""
    plain = to_jsonable_python(history)
    for message in plain:
        for name in ("timestamp", "run_id", "conversation_id", "usage", "failed_attempts"):
            message.pop(name, None)
        for part in message["parts"]:
            part.pop("timestamp", None)
    return plain


MODELS: dict[str, Callable[[], Model]] = {
    "streaming": lambda: scripted(["I ", "look. ", call(0, "look")], ["It is ", "cold."]),
    "whole": lambda: whole("It is cold."),
    "test": lambda: TestModel(),
    "fallback": lambda: FallbackModel(RateLimited(scripted()), TestModel()),
}


@pytest.mark.parametrize("name", MODELS)
async def test_history_and_output_are_those_of_an_agent_without_a_recorder(client: AsyncClient, name: str) -> None:
    said = []
    for recorded in (False, True):
        agent = Agent(MODELS[name](), deps_type=type(None))
        if name != "whole":

            @agent.tool_plain
            def look() -> dict[str, int]:
                return {"degrees": -3}

        if recorded:
            capabilities = [LavantCapability[None](client)]
            result = await agent.run("go", deps=None, capabilities=capabilities)
        elif name == "streaming":  # A model that only streams needs a loop that does.
            result, _ = await collect_stream_result(agent, "go")
        else:
            result = await agent.run("go", deps=None)
        said.append((result.output, messages_of(result.all_messages()), result.usage.requests))
    assert said[0] == said[1]


async def test_a_model_that_cannot_stream_is_streamed_by_nobody(client: AsyncClient) -> None:
    agent = Agent(whole("It is cold."), capabilities=[LavantCapability(client, run_id="r")])
    assert (await agent.run("go")).output == "It is cold."
    assert await client.runs.stream("r").text() == "It is cold."
    result, events = await collect_stream_result(Agent(whole("It is cold.")), "go")
    assert result.output == "It is cold."
    assert [event.data["text"] for event in events if event.event_type == "llm_chunk"] == ["It is cold."]


async def test_other_capabilities_see_the_same_requests(client: AsyncClient) -> None:
    class Watching(AbstractCapability[None]):
        async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> ModelResponse:
            response: ModelResponse = await handler(request_context)
            seen.append((type(ctx.model).__name__, request_context.streaming, response.text))
            return response

    seen: list[tuple[str, bool, str | None]] = []
    for capabilities in ([], [LavantCapability[None](client)]):
        agent = Agent(TestModel(custom_output_text="x"), deps_type=type(None), capabilities=[Watching()])
        await agent.run("go", deps=None, capabilities=capabilities)
    assert seen[0] == seen[1] == ("TestModel", False, "x")


LONG = "call_1__thought__" + "A" * 932
IDS = {"long": [LONG], "line break": ["a\nb"], "doubled": ["c", "c"], "empty": [""], "odd": ["\x00\u2028é"]}


@pytest.mark.parametrize("name", IDS)
async def test_any_id_of_a_tool_call_is_recorded_and_kept(client: AsyncClient, name: str) -> None:
    given = IDS[name]
    turns = [[call(0, "look", json.dumps({"q": index}), call_id)] for index, call_id in enumerate(given)]
    agent = Agent(scripted(*turns, ["done"]), capabilities=[LavantCapability(client, run_id="r")])

    @agent.tool_plain
    def look(q: int) -> int:
        return q

    result = await agent.run("go")
    returned = [part for message in result.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)]
    assert (await client.runs.get("r")).state is RunState.SUCCEEDED
    recording = await client.runs.stream("r").collect()
    assert sorted((used.arguments["q"], used.result) for used in recording.tool_calls) == [
        (index, index) for index in range(len(given))
    ]
    assert len({used.id for used in recording.tool_calls}) == len(given) == len(returned)
    started = [event for event in recording.events if event.type == "tool_call_started"]
    kept = [event.data.call.original_id or event.data.call.tool_call_id for event in started]
    if name != "empty":
        assert kept == given
    spoken = [event.data for event in recording.events if event.type == "message_finished"][:-1]
    asked = [part.tool_call for message in spoken for part in message.parts if part.tool_call]
    assert [each.tool_call_id for each in asked] == [used.id for used in recording.tool_calls]


async def test_prompts_of_any_kind_are_recorded(client: AsyncClient) -> None:
    agent = Agent(TestModel(), capabilities=[LavantCapability(client, run_id="r")])
    await agent.run(["What is this?", BinaryContent(b"\xff\x00", media_type="image/png")])
    assert (await client.runs.get("r")).state is RunState.SUCCEEDED
