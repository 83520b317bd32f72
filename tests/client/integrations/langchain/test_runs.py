"""Chains of LangChain and graphs of LangGraph, recorded."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from operator import itemgetter
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, adispatch_custom_event
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from typing_extensions import override

from lavant.client import (
    AsyncClient,
    Event,
    ProducerOptions,
    Run,
    RunCancelled,
    RunFailed,
    RunState,
    ToolCallOutcome,
    Usage,
)
from lavant.client.event_data import RunStarted, StepStarted
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler
from support.server import ServerProcess


class Scripted(GenericFakeChatModel):
    """Says its messages one after the other; streams their words, and their calls' arguments in two halves."""

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        answer = next(self.messages)
        assert isinstance(answer, AIMessage)
        for word in str(answer.text).split(" ") if answer.text else []:
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
        for index, call in enumerate(answer.tool_calls):
            chunk = tool_call_chunk(name=call["name"], id=call["id"], args='{"n": ', index=index)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
            chunk = tool_call_chunk(args=f"{call['args']['n']}}}", index=index)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=answer.usage_metadata))


def scripted(*answers: AIMessage) -> Scripted:
    return Scripted(messages=iter(answers))


def calling(*names: str, text: str = "") -> AIMessage:
    """A message that calls tools, each with its number."""
    calls = [ToolCall(name=name, args={"n": n}, id=f"call-{n}") for n, name in enumerate(names)]
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    return AIMessage(text, tool_calls=calls, usage_metadata=usage)


def agent(
    model: Runnable[Any, BaseMessage], *tools: BaseTool, name: str = "agent"
) -> "CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]":
    """A graph that asks a model, and calls tools while it wants to."""

    async def ask(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    return graph.compile(name=name)


HI: Any = {"messages": [("user", "hi")]}


def recorded(client: AsyncClient, **options: Any) -> RunnableConfig:
    return {"callbacks": [AsyncLavantCallbackHandler(client, **options)]}


async def newest(client: AsyncClient) -> Run:
    return await anext(client.runs.list())


async def log(client: AsyncClient, run: Run) -> list[Event]:
    return [event async for event in client.runs.events(run.id, page_size=1_000)]


async def tree(client: AsyncClient, run: Run) -> dict[str, list[str]]:
    """Each step's name, and the names of the steps in it; under the empty name, the run's own."""
    steps: list[StepStarted] = [event.data for event in await log(client, run) if event.type == "step_started"]
    names = {"": "", **{step.step_id: step.name for step in steps}}
    found: dict[str, list[str]] = {}
    for step in steps:
        found.setdefault(names[step.parent_step_id], []).append(step.name)
    return found


async def step_states(client: AsyncClient, run: Run) -> dict[str, list[str]]:
    """The states in which the steps of each name ended, sorted."""
    events = await log(client, run)
    names = {event.data.step_id: event.data.name for event in events if event.type == "step_started"}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for event in events:
        if event.type == "step_finished":
            found[names[event.data.step_id]].append(event.data.state)
    assert sum(map(len, found.values())) == len(names)
    return {name: sorted(states) for name, states in found.items()}


async def test_a_chain_is_recorded_without_its_plumbing(client: AsyncClient) -> None:
    def shout(text: str) -> str:
        return text.upper()

    prompt = ChatPromptTemplate.from_messages([("user", "{topic}")])
    answer = prompt | scripted(AIMessage("it is cold")) | StrOutputParser()
    chain = RunnablePassthrough.assign(said=answer) | itemgetter("said") | RunnableLambda(shout)
    run_id = uuid4()
    config: RunnableConfig = {**recorded(client, labels={"a": "b"}), "run_id": run_id, "run_name": "weather"}
    assert await chain.ainvoke({"topic": "Oslo"}, config) == "IT IS COLD"
    run = await client.runs.get(str(run_id))
    assert (run.name, run.state, run.labels) == ("weather", RunState.SUCCEEDED, {"a": "b"})
    assert run.result is not None
    assert run.result.output == "IT IS COLD"
    started = (await log(client, run))[0].data
    assert isinstance(started, RunStarted)
    assert started.input == {"topic": "Oslo"}
    assert await tree(client, run) == {"": ["Scripted", "shout"]}
    assert await client.runs.stream(run.id).text() == "it is cold"


async def test_a_graph_is_recorded(client: AsyncClient) -> None:
    @tool
    async def search(n: int) -> list[int]:
        """Search."""
        return [n, n]

    model = scripted(calling("search", text="I look."), AIMessage("cold"))
    await agent(model, search).ainvoke(HI, {**recorded(client), "configurable": {"thread_id": "talk"}})
    run = await newest(client)
    assert (run.name, run.state, run.conversation_id) == ("agent", RunState.SUCCEEDED, "talk")
    assert run.result is not None
    assert run.result.usage == Usage(input_tokens=5, output_tokens=2, requests=2)
    assert run.result.output["messages"][-1]["content"] == "cold"
    found = await tree(client, run)
    assert found[""] == ["ask", "tools", "ask"]
    assert found["ask"] == ["Scripted", "tools_condition", "Scripted", "tools_condition"]
    assert found["tools"] == ["search"]
    assert await client.runs.stream(run.id).text() == "I look.cold"
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert (used.name, used.arguments, used.result) == ("search", {"n": 0}, "[0, 0]")
    asked = next(event.data for event in await log(client, run) if event.type == "message_finished")
    assert [part.type for part in asked.parts] == ["text", "tool_call"]
    assert asked.parts[1].tool_call
    assert asked.parts[1].tool_call.tool_call_id == used.id


async def test_text_streams_and_is_not_doubled(client: AsyncClient) -> None:
    @tool
    async def search(n: int) -> int:
        """Search."""
        return n

    chunks = agent(scripted(calling("search", text="I look"), AIMessage("it is cold")), search).astream(
        HI, recorded(client), stream_mode="messages"
    )
    live: list[str] = []
    async for _ in chunks:
        if not live:
            run = await newest(client)
            async with client.runs.stream(run.id) as stream:
                live = [await anext(stream.text_chunks)]
    assert live == ["I "]
    run = await newest(client)
    assert await client.runs.stream(run.id).text() == "I look it is cold "
    arguments = [event.data for event in await log(client, run) if event.type == "tool_arguments_delta"]
    (used,) = [used async for used in client.runs.stream(run.id).tool_calls]
    assert [delta.arguments for delta in arguments] == ['{"n": ', "0}"]
    assert {delta.tool_call_id for delta in arguments} == {used.id}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_the_events_of_the_streaming_protocol_are_recorded(client: AsyncClient) -> None:
    stream = await scripted(AIMessage("it is cold")).astream_events("hi", recorded(client), version="v3")
    assert await stream.text == "it is cold "
    run = await newest(client)
    run = await client.runs.wait(run.id, timeout=30)
    types = [event.type for event in await log(client, run)]
    assert types.count("text_delta") == 3
    assert await client.runs.stream(run.id).text() == "it is cold "


async def test_parallel_tools_are_all_closed(client: AsyncClient) -> None:
    all_at_work = asyncio.Barrier(5)

    @tool
    async def work(n: int) -> str:
        """Work."""
        await all_at_work.wait()
        if n == 0:
            raise ValueError("kaputt")
        if n == 1:
            raise asyncio.CancelledError
        return "done"

    @tool
    async def wait(n: int) -> None:
        """Wait."""
        await all_at_work.wait()
        await asyncio.Event().wait()

    graph = agent(scripted(calling("work", "work", "work", "wait", "wait")), work, wait)
    with pytest.raises(ValueError, match="kaputt"):
        await graph.ainvoke(HI, recorded(client))
    run = await newest(client)
    assert run.state is RunState.FAILED
    states = await step_states(client, run)
    assert states["work"] == ["cancelled", "failed", "succeeded"]
    assert states["wait"] == ["cancelled", "cancelled"]
    events = await log(client, run)
    for kind in ("step", "tool_call", "message"):
        types = [str(event.type) for event in events]
        assert types.count(f"{kind}_started") == types.count(f"{kind}_finished")
    calls = [event.data.call.tool_call_id for event in events if event.type == "tool_call_started"]
    assert len(set(calls)) == 5


async def test_a_tool_that_raises_has_failed(client: AsyncClient) -> None:
    @tool
    def broken(n: int) -> str:
        """Break."""
        raise ValueError("kaputt")

    with pytest.raises(ValueError, match="kaputt"):
        await agent(scripted(calling("broken")), broken).ainvoke(HI, recorded(client))
    run = await newest(client)
    assert run.state is RunState.FAILED
    assert run.result is not None
    assert run.result.error is not None
    assert (run.result.error.message.split("\n")[0], run.result.error.type) == ("kaputt", "ValueError")
    calls = client.runs.stream(run.id).tool_calls
    used = await anext(calls)
    assert used.outcome is ToolCallOutcome.FAILED
    with pytest.raises(RunFailed):
        await anext(calls)


async def test_calls_of_parallel_agents_are_kept_apart(client: AsyncClient) -> None:
    both_at_work = asyncio.Barrier(2)

    @tool
    async def look_up(n: int) -> str:
        """Look up."""
        await both_at_work.wait()
        return "found"

    @tool
    async def consult(n: int) -> str:
        """Consult."""
        expert = agent(scripted(calling("look_up"), AIMessage(str(n))), look_up, name="expert")
        return str((await expert.ainvoke(HI))["messages"][-1].text)

    await agent(scripted(calling("consult", "consult"), AIMessage("ok")), consult).ainvoke(HI, recorded(client))
    assert len([run async for run in client.runs.list()]) == 1
    run = await newest(client)
    assert (await tree(client, run))["consult"] == ["expert", "expert"]
    events = await log(client, run)
    messages = [event.data for event in events if event.type == "message_finished"]
    spoken = [part.tool_call.tool_call_id for message in messages for part in message.parts if part.tool_call]
    executed = [event.data.call.tool_call_id for event in events if event.type == "tool_call_started"]
    assert len(set(executed)) == 4
    assert sorted(spoken) == sorted(executed)


async def test_one_handler_serves_concurrent_invocations(client: AsyncClient) -> None:
    both_at_work = asyncio.Barrier(2)

    async def work(name: str) -> str:
        await both_at_work.wait()
        return name

    config = recorded(client)
    await asyncio.gather(*(RunnableLambda(work).with_config(run_name=name).ainvoke(name, config) for name in "ab"))
    outputs = {run.name: run.result.output async for run in client.runs.list() if run.result}
    assert outputs == {"a": "a", "b": "b"}


async def test_within_a_run_a_chain_is_a_step(client: AsyncClient) -> None:
    chain = RunnableLambda(lambda text: text).with_config(run_name="inner") | scripted(AIMessage("x"))
    async with client.runs.start("outer") as run, run.step("around"):
        await chain.with_config(run_name="chain").ainvoke("hi", recorded(client))
    assert await tree(client, await client.runs.get(run.id)) == {
        "": ["around"],
        "around": ["chain"],
        "chain": ["inner", "Scripted"],
    }
    assert run.usage == Usage(requests=1)


async def test_invocation_leaves_no_open_scope(client: AsyncClient) -> None:
    config = recorded(client)
    for _ in range(2):
        await scripted(AIMessage("x")).ainvoke("hi", config)
    assert [(run.name, run.state) async for run in client.runs.list()] == [("Scripted", RunState.SUCCEEDED)] * 2


async def test_blocking_calls_within_an_invocation_are_recorded_in_it(client: AsyncClient) -> None:
    @tool
    def consult(n: int) -> str:
        """Consult, in a thread."""
        return str(scripted(AIMessage("from a thread")).invoke("hi").text)

    async def consult_in_the_loop(n: int) -> str:
        return str(scripted(AIMessage(" from the loop ")).invoke("hi").text)

    in_the_loop = StructuredTool.from_function(coroutine=consult_in_the_loop, description="Consult.")
    model = scripted(calling("consult"), calling("consult_in_the_loop"), AIMessage("ok"))
    await agent(model, consult, in_the_loop).ainvoke(HI, recorded(client))
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    found = await tree(client, run)
    assert found["consult"] == found["consult_in_the_loop"] == ["Scripted"]
    assert await client.runs.stream(run.id).text() == "ok"
    assert await client.runs.stream(run.id).text(nested=True) == "from a thread from the loop ok"


async def test_invocation_in_another_thread_is_recorded(client: AsyncClient) -> None:
    chain = RunnableLambda(lambda text: text) | scripted(AIMessage("x"))
    answer = await asyncio.to_thread(chain.invoke, "hi", recorded(client))
    assert answer.text == "x"
    assert await client.flush(10)
    run = await newest(client)
    assert (run.name, run.state) == ("RunnableSequence", RunState.SUCCEEDED)
    assert await client.runs.stream(run.id).text() == "x"


async def test_a_handler_that_knows_no_event_loop_records_no_blocking_call(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    def call() -> str:
        return str(scripted(AIMessage("x")).invoke("hi", recorded(client)).text)

    assert await asyncio.to_thread(call) == "x"
    assert "not called in the event loop of the client" in caplog.text
    assert [run async for run in client.runs.list()] == []


async def test_retrieval_and_custom_events_are_recorded(client: AsyncClient) -> None:
    class Shelf(BaseRetriever):
        @override
        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [Document(query)]

        @override
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            raise NotImplementedError

    async def note(found: Sequence[Document]) -> int:
        await adispatch_custom_event("acme.found", {"count": len(found)})
        return len(found)

    await (Shelf() | RunnableLambda(note)).ainvoke("hi", recorded(client))
    run = await newest(client)
    events = await log(client, run)
    assert (await tree(client, run))[""] == ["Shelf", "note"]
    (custom,) = [event for event in events if event.type == "custom"]
    assert (custom.data.name, custom.data.value) == ("acme.found", {"count": 1})
    finished = next(event for event in events if event.type == "step_finished")
    assert finished.data.output[0]["page_content"] == "hi"


async def test_a_graph_that_waits_for_a_person_has_not_failed(client: AsyncClient) -> None:
    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("user", interrupt("may I?"))]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    config: RunnableConfig = {**recorded(client), "configurable": {"thread_id": "t"}}
    await graph.compile(checkpointer=InMemorySaver()).ainvoke(HI, config)
    run = await newest(client)
    assert run.state is RunState.SUCCEEDED
    assert await step_states(client, run) == {"ask": ["succeeded"]}


async def test_cancelling_the_run_cancels_the_graph(client: AsyncClient) -> None:
    at_work = asyncio.Event()

    @tool
    async def wait(n: int) -> None:
        """Wait."""
        at_work.set()
        await asyncio.Event().wait()

    graph = agent(scripted(calling("wait")), wait)
    running = asyncio.create_task(graph.ainvoke(HI, recorded(client)))
    await at_work.wait()
    run = await newest(client)
    await client.runs.cancel(run.id, "enough")
    with pytest.raises(RunCancelled, match="enough"):
        await running
    assert running.cancelling() == 0
    result = (await client.runs.get(run.id)).result
    assert result is not None
    assert (result.state, result.error and result.error.message) == (RunState.CANCELLED, "enough")
    assert (await step_states(client, run))["wait"] == ["cancelled"]


@pytest.mark.parametrize("is_bare", [False, True])
async def test_cancelling_the_task_cancels_the_run(client: AsyncClient, is_bare: bool) -> None:
    at_work = asyncio.Event()

    @tool
    async def wait(n: int) -> None:
        """Wait."""
        at_work.set()
        await asyncio.Event().wait()

    root: Runnable[Any, Any] = wait if is_bare else agent(scripted(calling("wait")), wait)
    running = asyncio.create_task(root.ainvoke({"n": 1} if is_bare else HI, recorded(client)))
    await at_work.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    run = await client.runs.wait((await newest(client)).id, timeout=30)
    assert run.state is RunState.CANCELLED
    assert (await step_states(client, run))["wait"] == ["cancelled"]


async def test_a_stream_that_is_left_is_cancelled(client: AsyncClient) -> None:
    chunks = (RunnableLambda(lambda text: text) | scripted(AIMessage("a b c"))).astream("hi", recorded(client))
    async for _ in chunks:
        break
    assert isinstance(chunks, AsyncGenerator)
    await chunks.aclose()
    run = await client.runs.wait((await newest(client)).id, timeout=30)
    assert run.state is RunState.CANCELLED
    assert (await step_states(client, run))["Scripted"] == ["cancelled"]


async def test_a_chain_outlives_the_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    async def stop_the_server(text: str) -> str:
        await server_process.kill()
        return text

    options = ProducerOptions(close_timeout=0.1)
    chain = RunnableLambda(stop_the_server) | scripted(AIMessage("x"))
    assert (await chain.ainvoke("hi", recorded(process_client, options=options))).text == "x"


async def test_a_chain_works_without_a_server(server_process: ServerProcess, process_client: AsyncClient) -> None:
    await server_process.kill()
    options = ProducerOptions(block_timeout=0.1, close_timeout=0.1)
    assert (await scripted(AIMessage("x")).ainvoke("hi", recorded(process_client, options=options))).text == "x"
