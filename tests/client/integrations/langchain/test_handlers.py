"""Handlers of LangChain that are given twice, copied, of the wrong kind; what passes through recorded chains."""

import asyncio
import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, Client, RunState
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler, LavantCallbackHandler
from lavant.client.integrations.pydantic_ai import LavantCapability


def model(handlers: Any = None) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("ha ha ha ha")]), callbacks=handlers)


async def stream(runnable: Any, handlers: list[Any]) -> None:
    async for _ in runnable.astream("x", {"callbacks": handlers}):
        pass


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda handler: handler])
async def test_a_handler_given_twice_records_once(client: AsyncClient, copied: Callable[[Any], Any]) -> None:
    async def note(text: str) -> str:
        for _ in range(2):
            await adispatch_custom_event("noted", {})
        return text

    handler = AsyncLavantCallbackHandler(client)
    await stream(RunnableLambda(note).with_config(run_name="note") | model(), [handler, copied(handler)])
    (run,) = [run async for run in client.runs.list()]
    recording = await client.runs.stream(run.id).collect()
    assert recording.text == "ha ha ha ha"
    assert [step.name for step in recording.steps] == ["note", "GenericFakeChatModel"]
    assert [event.type for event in recording.events].count("custom") == 2


async def test_the_handler_given_to_the_call_wins_over_the_one_of_the_model(client: AsyncClient) -> None:
    own, given = (AsyncLavantCallbackHandler(client, name=name) for name in ("own", "given"))
    await stream(model([own]), [given])
    await stream(RunnableLambda(lambda text: text) | model([own]), [given])
    assert [run.name async for run in client.runs.list()] == ["given", "given"]
    await stream(RunnableLambda(lambda text: text) | model([own]), [])
    assert [run.name async for run in client.runs.list()] == ["own", "given", "given"]
    async for run in client.runs.list():
        assert await client.runs.stream(run.id).text() == "ha ha ha ha"


def test_a_blocking_handler_given_twice_records_once(blocking: Client) -> None:
    handler = LavantCallbackHandler(blocking)
    for _ in model([copy.deepcopy(handler)]).stream("x", {"callbacks": [handler, handler]}):
        pass
    (run,) = blocking.runs.list()
    assert blocking.runs.stream(run.id).text() == "ha ha ha ha"


async def test_a_chain_in_a_tool_of_a_recorded_agent_is_recorded_in_the_tool(client: AsyncClient, server: Any) -> None:
    with Client(server.target) as blocking:
        agent = Agent(TestModel(), name="agent", capabilities=[LavantCapability(client)])

        @agent.tool_plain
        async def ask() -> str:
            answer = await model().ainvoke("x", {"callbacks": [AsyncLavantCallbackHandler(client)]})
            return str(answer.text)

        @agent.tool_plain
        def ask_in_a_thread() -> str:
            return str(model().invoke("x", {"callbacks": [LavantCallbackHandler(blocking)]}).text)

        await agent.run("x")
        (run,) = [run async for run in client.runs.list()]
    recording = await client.runs.stream(run.id).collect()
    tools = {step.name: [inner.name for inner in step.children] for step in recording.steps if step.kind == "tool"}
    assert tools == {"ask": ["GenericFakeChatModel"], "ask_in_a_thread": ["GenericFakeChatModel"]}


async def test_the_wrong_kind_of_client_costs_the_recording_alone(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with Client("127.0.0.1:9") as blocking:
        wrong: Any = blocking
        answer = await model().ainvoke("x", {"callbacks": [AsyncLavantCallbackHandler(wrong)]})
        assert answer.text == "ha ha ha ha"
    assert "AsyncLavantCallbackHandler needs an AsyncClient, not Client" in caplog.text
    other: Any = client
    chain = RunnableLambda(lambda text: text)
    assert await asyncio.to_thread(chain.invoke, "x", {"callbacks": [LavantCallbackHandler(other)]}) == "x"
    assert "LavantCallbackHandler needs a Client, not AsyncClient" in caplog.text


class Hostile:
    """A value that must not be touched."""

    touched: list[str] = []  # noqa: RUF012

    def __getattribute__(self, name: str) -> Any:
        if name in {"__class__", "__dict__", "content", "items"}:
            Hostile.touched.append(name)
        return object.__getattribute__(self, name)

    def __eq__(self, other: object) -> bool:
        Hostile.touched.append("==")
        raise RuntimeError

    def __hash__(self) -> int:
        Hostile.touched.append("hash")
        raise RuntimeError

    def __bool__(self) -> bool:
        Hostile.touched.append("bool")
        raise RuntimeError

    def __str__(self) -> str:
        Hostile.touched.append("str")
        raise RuntimeError

    __repr__ = __str__


def endless() -> Iterator[int]:
    while True:
        yield 1


MAKERS: dict[str, Callable[[], Any]] = {
    "map": lambda: map(str, [1, 2]),
    "generator": lambda: (str(number) for number in (1, 2)),
    "file": lambda: io.StringIO("1\n2\n"),
    "nested": lambda: {"rows": iter("12"), (1, 2): [iter("12")]},
}


def read(given: Any) -> list[str]:
    return [str(line).strip() for line in (given["rows"] if isinstance(given, dict) else given)]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_what_can_be_read_once_reaches_the_next_step_whole(
    client: AsyncClient, server: Any, make: Callable[[], Any]
) -> None:
    @tool
    async def rows(given: Any) -> Any:
        """Return what was given."""
        return given

    passing = RunnableLambda(lambda given: given).with_config(run_name="passing")
    chain = RunnableLambda(lambda _: make()).with_config(run_name="source") | passing | read
    handler = AsyncLavantCallbackHandler(client)
    assert await chain.ainvoke(0, {"callbacks": [handler]}) == await chain.ainvoke(0) == ["1", "2"]
    given = make()
    assert read(await rows.ainvoke({"given": given}, {"callbacks": [handler]})) == ["1", "2"]
    with Client(server.target) as blocking:
        config: Any = {"callbacks": [LavantCallbackHandler(blocking)]}
        assert await asyncio.to_thread(chain.invoke, 0, config) == ["1", "2"]


async def test_values_are_not_touched_and_endless_ones_are_not_read(client: AsyncClient) -> None:
    value, numbers = Hostile(), endless()
    passing = RunnableLambda(lambda given: given).with_config(run_name="passing")
    chain = passing | RunnableLambda(lambda given: given).with_config(run_name="again")
    Hostile.touched.clear()
    for given in (value, numbers):
        await chain.ainvoke(given)
    without = list(Hostile.touched)
    Hostile.touched.clear()
    for given in (value, numbers):
        assert await chain.ainvoke(given, {"callbacks": [AsyncLavantCallbackHandler(client)]}) is given
    assert Hostile.touched == without
    assert next(numbers) == 1
    assert {run.state async for run in client.runs.list()} == {RunState.SUCCEEDED}
