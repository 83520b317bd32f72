"""Chains of LangChain and graphs of LangGraph, called without asyncio, recorded."""

import threading
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, Client, Run, RunCancelled, RunProducer, RunState, Step, Unavailable
from lavant.client._publishing import scope as _scope
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler, LavantCallbackHandler
from lavant.client.integrations.pydantic_ai import LavantCapability

HI: Any = {"messages": [("user", "hi")]}


def scripted(*answers: AIMessage) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(answers))


def calling(*names: str) -> AIMessage:
    """A message that calls tools, each with its number."""
    return AIMessage(
        "", tool_calls=[ToolCall(name=name, args={"n": n}, id=f"call-{n}") for n, name in enumerate(names)]
    )


def agent(
    model: Runnable[Any, BaseMessage], *tools: BaseTool
) -> "CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]":
    """A graph that asks a model, and calls tools while it wants to."""

    def ask(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_soon(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", RunnableLambda(ask, ask_soon))
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition)
    graph.add_edge("tools", "ask")
    return graph.compile(name="agent")


def recorded(client: Client, **options: Any) -> RunnableConfig:
    return {"callbacks": [LavantCallbackHandler(client, **options)]}


def newest(client: Client) -> Run:
    return next(client.runs.list())


def steps(client: Client, run: Run) -> list[Step]:
    """All steps; each must have ended."""
    recording = client.runs.stream(run.id).collect(raise_for_state=False)
    found = [step for root in recording.steps for step in root.walk()]
    assert all(step.state for step in found)
    return found


def test_a_graph_is_recorded(blocking: Client) -> None:
    @tool
    def search(n: int) -> list[int]:
        """Search."""
        return [n, n]

    graph = agent(scripted(calling("search"), AIMessage("cold")), search)
    graph.invoke(HI, {**recorded(blocking, labels={"a": "b"}), "configurable": {"thread_id": "talk"}})
    run = newest(blocking)
    assert (run.name, run.state, run.conversation_id, run.labels) == ("agent", RunState.SUCCEEDED, "talk", {"a": "b"})
    assert blocking.runs.stream(run.id).text() == "cold"
    (call,) = blocking.runs.stream(run.id).tool_calls
    assert (call.name, call.arguments, call.result) == ("search", {"n": 0}, "[0, 0]")
    parents = {step.id: step.name for step in steps(blocking, run)}
    assert [parents[step.parent_id] for step in steps(blocking, run) if step.name == "search"] == ["tools"]


def test_text_streams(blocking: Client) -> None:
    chunks = scripted(AIMessage("it is cold")).stream("hi", recorded(blocking))
    next(chunks)
    run = newest(blocking)
    assert next(blocking.runs.stream(run.id).text_chunks) == "it"
    assert [chunk.content for chunk in chunks][:4] == [" ", "is", " ", "cold"]
    assert blocking.runs.stream(run.id).text() == "it is cold"


def test_parallel_tools_in_threads_are_closed_as_they_ended(blocking: Client) -> None:
    all_at_work = threading.Barrier(5)

    @tool
    def work(n: int) -> str:
        """Work."""
        all_at_work.wait()
        if n == 3:
            raise ValueError("kaputt")
        return str(n)

    with pytest.raises(ValueError, match="kaputt"):
        agent(scripted(calling(*["work"] * 5)), work).invoke(HI, recorded(blocking))
    run = newest(blocking)
    assert run.state is RunState.FAILED
    states = [step.state for step in steps(blocking, run) if step.name == "work"]
    assert sorted(str(state) for state in states) == ["failed", *["succeeded"] * 4]
    recording = blocking.runs.stream(run.id).collect(raise_for_state=False)
    assert sorted(str(call.result or (call.error and call.error.message)) for call in recording.tool_calls) == [
        *"0124",
        "kaputt",
    ]


def test_each_of_a_batch_is_a_run(blocking: Client) -> None:
    def shout(text: str) -> str:
        return text.upper()

    assert RunnableLambda(shout).batch(["a", "b", "c"], recorded(blocking)) == ["A", "B", "C"]
    outputs = [run.result.output for run in blocking.runs.list() if run.result]
    assert sorted(outputs) == ["A", "B", "C"]


def test_invocation_within_a_block_is_a_step_and_the_block_continues(blocking: Client) -> None:
    with blocking.runs.start("outer") as run:
        RunnableLambda(str.upper).invoke("a", {**recorded(blocking), "run_name": "shout"})
        with run.step("behind"):
            pass
    assert [step.name for step in steps(blocking, blocking.runs.get(run.id))] == ["shout", "behind"]
    assert len(list(blocking.runs.list())) == 1


def test_call_between_chunks_of_another_invocation_is_a_run_of_its_own(blocking: Client) -> None:
    chunks = scripted(AIMessage("it is cold")).stream("hi", recorded(blocking))
    next(chunks)
    RunnableLambda(str.upper).invoke("a", {**recorded(blocking), "run_name": "shout"})
    assert "".join(str(chunk.content) for chunk in chunks) == " is cold"
    assert {run.name for run in blocking.runs.list()} == {"shout", "GenericFakeChatModel"}


def test_blocks_within_a_tool_are_part_of_its_step(blocking: Client) -> None:
    @tool
    def search(n: int) -> int:
        """Search."""
        inner = RunnableLambda(lambda value: value, name="inner")
        return int(inner.invoke(n, recorded(blocking)))

    agent(scripted(calling("search"), AIMessage("cold")), search).invoke(HI, recorded(blocking))
    (run,) = blocking.runs.list()
    names = {step.id: step.name for step in steps(blocking, run)}
    assert [names[step.parent_id] for step in steps(blocking, run) if step.name == "inner"] == ["search"]


async def test_agents_of_other_frameworks_within_a_tool_are_part_of_its_step(process_client: AsyncClient) -> None:
    helper = Agent(
        TestModel(custom_output_text="done"), name="helper", capabilities=[LavantCapability[None](process_client)]
    )

    @tool
    async def ask(n: int) -> str:
        """Ask."""
        return (await helper.run("go")).output

    config: RunnableConfig = {"callbacks": [AsyncLavantCallbackHandler(process_client)]}
    await agent(scripted(calling("ask", "ask"), AIMessage("cold")), ask).ainvoke(HI, config)
    (run,) = [run async for run in process_client.runs.list()]
    recording = await process_client.runs.stream(run.id).collect()
    found = [step for root in recording.steps for step in root.walk()]
    names = {step.id: step.name for step in found}
    assert [names[step.parent_id] for step in found if step.name == "helper"] == ["ask", "ask"]
    assert len({step.parent_id for step in found if step.name == "helper"}) == 2


def test_a_cancelled_run_stops_at_what_begins_next(blocking: Client) -> None:
    began = []

    @tool
    def work(n: int) -> None:
        """Work."""
        began.append(n)
        producer = _scope.current_run()
        assert isinstance(producer, RunProducer)
        blocking.runs.cancel(producer.id, "enough")
        producer.wait_cancelled()

    graph = agent(scripted(calling("work"), AIMessage("never")), work)
    with pytest.raises(RunCancelled, match="enough"):
        graph.invoke(HI, recorded(blocking))
    run = newest(blocking)
    assert (run.state, began) == (RunState.CANCELLED, [0])
    assert all(step.state for step in steps(blocking, run))


def test_unreachable_server_fails_strict_handlers_only() -> None:
    with Client("127.0.0.1:9", timeout=0.1) as nowhere:
        assert RunnableLambda(str.upper).invoke("a", recorded(nowhere)) == "A"
        with pytest.raises(Unavailable):
            RunnableLambda(str.upper).invoke("a", recorded(nowhere, on_error="raise"))
