"""Answers of unusual shape from LangChain's models: each message and step that began ends, with what was said."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from typing_extensions import override

from lavant.client import AsyncClient, Client, Recording, RunFailed, RunState, Step, Usage
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler, LavantCallbackHandler


class Says(BaseChatModel):
    """Returns one answer whole, or streams chunks."""

    answer: Any = None
    chunks: list[Any] = []  # noqa: RUF012 - a pydantic field
    error: Any = None

    @property
    @override
    def _llm_type(self) -> str:
        return "says"

    @override
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if self.error is not None:
            raise self.error
        generations = [] if self.answer is None else [ChatGeneration(message=self.answer)]
        return ChatResult(generations=generations)

    @override
    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk)
        if self.error is not None:
            raise self.error


def used(usage: Any) -> AIMessage:
    message = AIMessage("hello")
    message.usage_metadata = usage
    return message


def invalid(arguments: str) -> AIMessage:
    call = {"name": "a", "args": arguments, "id": "x", "error": "bad", "type": "invalid_tool_call"}
    return AIMessage("hello", invalid_tool_calls=[call])


ANSWERS: dict[str, tuple[AIMessage, Usage]] = {
    "usage of None": (
        used({"input_tokens": 5, "output_tokens": None, "total_tokens": 5}),
        Usage(input_tokens=5, requests=1),
    ),
    "usage with only a total": (used({"total_tokens": 6}), Usage(requests=1)),
    "usage of odd types": (
        used(
            {"input_tokens": "many", "output_tokens": -1, "input_token_details": 7, "output_token_details": {"a": []}}
        ),
        Usage(requests=1),
    ),
    "usage of floats": (
        used({"input_tokens": 5.0, "output_tokens": 2.0}),
        Usage(input_tokens=5, output_tokens=2, requests=1),
    ),
    "usage that is a list": (used([1, 2]), Usage(requests=1)),
    "usage beyond 64 bits": (used({"input_tokens": 10**30, "output_tokens": 2}), Usage(output_tokens=2, requests=1)),
    "a text block without text": (
        AIMessage([{"type": "text", "text": "hello"}, {"type": "text", "citations": []}]),
        Usage(requests=1),
    ),
    "a text block of None": (
        AIMessage([{"type": "text", "text": None}, {"type": "text", "text": "hello"}]),
        Usage(requests=1),
    ),
    "a block of no known type": (AIMessage(["hello", {"type": ["odd"]}, {"kind": 1}]), Usage(requests=1)),
    "a refusal as a block": (AIMessage([{"type": "refusal", "refusal": "hello"}]), Usage(requests=1)),
    "a refusal beside the content": (AIMessage("", additional_kwargs={"refusal": "hello"}), Usage(requests=1)),
    "arguments of 20,000 brackets": (invalid("[" * 20_000), Usage(requests=1)),
    "arguments that are no text": (invalid("{'a': \ud800}"), Usage(requests=1)),
    "odd metadata": (AIMessage("hello", response_metadata={"finish_reason": ["stop"]}), Usage(requests=1)),
}


def said(recording: Recording) -> list[str]:
    finished = [event.data for event in recording.events if event.type == "message_finished"]
    return ["".join(part.text for part in message.parts if part.text) for message in finished]


def only_step(recording: Recording) -> Step:
    (step,) = recording.steps
    return step


async def recorded(client: AsyncClient, model: BaseChatModel | BaseLLM, given: Any = "x") -> Recording:
    await model.ainvoke(given, {"callbacks": [AsyncLavantCallbackHandler(client)]})
    run = await anext(client.runs.list())
    assert run.state is RunState.SUCCEEDED
    return await client.runs.stream(run.id).collect()


@pytest.mark.parametrize(("answer", "usage"), ANSWERS.values(), ids=ANSWERS)
async def test_odd_answer_loses_its_odd_field_only(client: AsyncClient, answer: AIMessage, usage: Usage) -> None:
    recording = await recorded(client, Says(answer=answer))
    assert said(recording) == ["hello"]
    step = only_step(recording)
    assert (step.state, step.usage) == (RunState.SUCCEEDED, usage)
    assert recording.usage == usage


def test_odd_answer_of_a_blocking_call_loses_its_odd_field_only(blocking: Client) -> None:
    for answer, usage in ANSWERS.values():
        Says(answer=answer).invoke("x", {"callbacks": [LavantCallbackHandler(blocking)]})
        run = next(blocking.runs.list())
        recording = blocking.runs.stream(run.id).collect()
        assert (said(recording), only_step(recording).usage) == (["hello"], usage)


class Completes(BaseLLM):
    """A model that completes text."""

    result: Any

    @property
    @override
    def _llm_type(self) -> str:
        return "completes"

    @override
    def _generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        return LLMResult.model_construct(**self.result)


@pytest.mark.parametrize("info", [None, {}, {"finish_reason": 1}])
async def test_the_usage_of_a_completion_is_that_of_the_whole_result(client: AsyncClient, info: Any) -> None:
    generation = Generation(text="hello", generation_info=info)
    used_tokens = {"token_usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    recording = await recorded(client, Completes(result={"generations": [[generation]], "llm_output": used_tokens}))
    assert said(recording) == ["hello"]
    assert recording.usage == Usage(input_tokens=5, output_tokens=2, requests=1)


async def test_a_result_without_candidates_finishes_its_message_and_step(client: AsyncClient) -> None:
    with pytest.raises(Exception, match=r"list index out of range"):
        await Says(answer=None).ainvoke("x", {"callbacks": [AsyncLavantCallbackHandler(client)]})
    run = await anext(client.runs.list())
    recording = await client.runs.stream(run.id).collect(raise_for_state=False)
    assert (said(recording), only_step(recording).state) == ([""], RunState.SUCCEEDED)


CUTS = {
    "whole": ["It is 🥶 cold."],
    "by characters": list("It is 🥶 cold."),
    "between surrogates": ["It is \ud83e", "\udd76 cold."],
    "with empty chunks": ["", "It is 🥶", "", " cold.", ""],
    "as blocks": [[{"type": "text", "text": "It is ", "index": 0}], [{"type": "text", "text": "🥶 cold.", "index": 0}]],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_text_is_the_same_however_it_was_cut(client: AsyncClient, cut: list[Any]) -> None:
    model = Says(chunks=[AIMessageChunk(content=chunk) for chunk in cut])
    async for _ in model.astream("x", {"callbacks": [AsyncLavantCallbackHandler(client)]}):
        pass
    run = await anext(client.runs.list())
    recording = await client.runs.stream(run.id).collect()
    assert (recording.text, said(recording)) == ("It is 🥶 cold.", ["It is 🥶 cold."])


async def test_what_was_streamed_before_a_failure_is_kept_and_the_step_failed(client: AsyncClient) -> None:
    arguments = [tool_call_chunk(name="search", id="c", args='{"q": "Os', index=0)]
    chunks = [AIMessageChunk(content="It is "), AIMessageChunk(content="", tool_call_chunks=arguments)]
    model = Says(chunks=chunks, error=ConnectionError("reset by the provider"))
    with pytest.raises(ConnectionError, match="reset"):
        async for _ in model.astream("x", {"callbacks": [AsyncLavantCallbackHandler(client)]}):
            pass
    run = await anext(client.runs.list())
    recording = await client.runs.stream(run.id).collect(raise_for_state=False)
    step = only_step(recording)
    assert (said(recording), step.state) == (["It is "], RunState.FAILED)
    assert step.error is not None
    assert (step.error.message, step.error.type) == ("reset by the provider", "ConnectionError")
    with pytest.raises(RunFailed, match="reset by the provider"):
        await client.runs.stream(run.id).result()


@pytest.mark.parametrize("ids", [(None, None), ("c", "c"), ("", ""), ("c" * 900, "c" * 900), ("a\nb", "a\nb")])
async def test_calls_with_the_same_id_or_none_get_distinct_ids(client: AsyncClient, ids: tuple[Any, Any]) -> None:
    @tool
    def work(n: int) -> int:
        """Work."""
        return n * 2

    calls = [{"name": "work", "args": {"n": n}, "id": call_id, "type": "tool_call"} for n, call_id in enumerate(ids)]
    model = Says(answer=AIMessage("", tool_calls=calls))

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def execute(state: MessagesState) -> dict[str, Any]:
        answer = state["messages"][-1]
        assert isinstance(answer, AIMessage)
        for call in answer.tool_calls:
            await work.ainvoke({**call, "id": call["id"]} if call["id"] else call["args"])
        return {}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_node("execute", execute)
    graph.add_edge(START, "ask").add_edge("ask", "execute")
    await graph.compile().ainvoke(
        {"messages": [HumanMessage("x")]}, {"callbacks": [AsyncLavantCallbackHandler(client)]}
    )
    run = await anext(client.runs.list())
    recording = await client.runs.stream(run.id).collect()
    (answer,) = [event.data for event in recording.events if event.type == "message_finished"]
    asked = [part.tool_call.tool_call_id for part in answer.parts if part.tool_call]
    assert len(set(asked)) == 2
    assert [(call.id, call.arguments, str(call.result)) for call in recording.tool_calls] == [
        (asked[0], {"n": 0}, "0"),
        (asked[1], {"n": 1}, "2"),
    ]


async def test_steps_of_requests_and_tools_have_input_and_output(client: AsyncClient) -> None:
    @tool
    async def work(n: int) -> list[int]:
        """Work."""
        return [n, n]

    answer = AIMessage("I work.", tool_calls=[{"name": "work", "args": {"n": 1}, "id": "c"}])
    await recorded(client, Says(answer=answer), [("system", "Be brief."), ("user", "hi")])
    run = await anext(client.runs.list(names=["Says"]))
    (request,) = (await client.runs.stream(run.id).collect()).steps
    assert request.input == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert request.output == [
        {"role": "assistant", "content": "I work."},
        {"role": "assistant", "tool_call": "work", "arguments": {"n": 1}, "tool_call_id": "c"},
    ]
    await work.ainvoke({"n": 1}, {"callbacks": [AsyncLavantCallbackHandler(client)]})
    run = await anext(client.runs.list(names=["work"]))
    (step,) = (await client.runs.stream(run.id).collect()).steps
    assert (step.input, step.output) == ({"n": 1}, [1, 1])


async def test_the_last_messages_are_kept_of_a_long_conversation(client: AsyncClient) -> None:
    conversation = [HumanMessage(f"{number} " + "x" * 2_000) for number in range(100)]
    recording = await recorded(client, Says(answer=AIMessage("hello")), conversation)
    omitted, *kept = only_step(recording).input
    assert omitted["omitted"] + len(kept) == 100
    assert kept[-1]["content"].startswith("99 ")
