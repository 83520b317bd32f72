"""Agents of every framework end as they do without a recorder, however they are stopped, and their records end too."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
from agents import Runner, function_tool
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, Client, Recording, Step
from lavant.client.integrations.agent_streaming import collect_stream_result
from lavant.client.integrations.langchain import AsyncLavantCallbackHandler, LavantCallbackHandler
from lavant.client.integrations.openai_agents import LavantRunner
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.openai_agents import offline as offline
from support.openai_agents import one_call
from support.server import ServerProcess

Work = Callable[[], Awaitable[str]]
Run = Callable[[AsyncClient | None, Work], Coroutine[Any, Any, object]]


async def run_pydantic_ai(client: AsyncClient | None, work: Work) -> object:
    agent = Agent(TestModel(custom_output_text="done"), name="agent", deps_type=type(None))
    agent.tool_plain(name="work")(work)
    capabilities = [LavantCapability[None](client)] if client else []
    return (await agent.run("go", deps=None, capabilities=capabilities)).output


async def run_streamed_pydantic_ai(client: AsyncClient | None, work: Work) -> object:
    agent = Agent(TestModel(custom_output_text="done"), name="agent")
    agent.tool_plain(name="work")(work)
    result, _ = await collect_stream_result(agent, "go", client=client)
    return result.output


async def run_openai_agents(client: AsyncClient | None, work: Work) -> object:
    runner: Any = LavantRunner(client) if client else Runner
    return (await runner.run(one_call(function_tool(work, name_override="work")), "go")).final_output


async def run_streamed_openai_agents(client: AsyncClient | None, work: Work) -> object:
    agent = one_call(function_tool(work, name_override="work"))
    if client is None:
        streamed = Runner.run_streamed(agent, "go")
        try:
            async for _ in streamed.stream_events():
                pass
        finally:
            streamed.cancel()
        return streamed.final_output
    async with LavantRunner(client).run_streamed(agent, "go") as streamed:
        async for _ in streamed.stream_events():
            pass
    return streamed.final_output


def chain(work: Work) -> Any:
    tool = StructuredTool.from_function(coroutine=work, name="work", description="Work.")

    async def use(_: str) -> str:
        return str(await tool.ainvoke({}))

    return RunnableLambda(use).with_config(run_name="agent") | RunnableLambda(lambda _: "done")


async def run_langchain(client: AsyncClient | None, work: Work) -> object:
    return await chain(work).ainvoke("go", {"callbacks": [AsyncLavantCallbackHandler(client)] if client else []})


async def run_streamed_langchain(client: AsyncClient | None, work: Work) -> object:
    config = {"callbacks": [AsyncLavantCallbackHandler(client)] if client else []}
    return "".join([chunk async for chunk in chain(work).astream("go", config)])


RUNS: dict[str, Run] = {
    "pydantic-ai": run_pydantic_ai,
    "pydantic-ai streamed": run_streamed_pydantic_ai,
    "openai-agents": run_openai_agents,
    "openai-agents streamed": run_streamed_openai_agents,
    "langchain": run_langchain,
    "langchain streamed": run_streamed_langchain,
}


async def outcome_of(running: Awaitable[object]) -> object:
    """Return what an agent returns, or the type and the arguments of what it raises."""
    try:
        return await running
    except BaseException as error:
        return type(error).__name__, error.args[:1]


async def check_ended(client: AsyncClient) -> Recording:
    """Return the only run; all that has started in it must have ended."""
    (run,) = [run async for run in client.runs.list()]
    ended = await client.runs.wait(run.id, timeout=30)
    recording = await client.runs.stream(ended.id).collect(raise_for_state=False)
    for kind in ("step", "message", "tool_call"):
        types = [str(event.type) for event in recording.events]
        assert types.count(f"{kind}_started") == types.count(f"{kind}_finished")
    return recording


class NoTextError(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("kaputt"),
    "cancellation": asyncio.CancelledError,
    "group": lambda: ExceptionGroup("several", [ValueError("kaputt")]),
    "timeout": lambda: TimeoutError("late"),
    "no text": NoTextError,
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("framework", RUNS)
async def test_a_tool_that_raises_has_the_same_outcome(client: AsyncClient, framework: str, error: str) -> None:
    async def work() -> str:
        raise ERRORS[error]()

    run = RUNS[framework]
    plain = await outcome_of(asyncio.create_task(run(None, work)))
    assert await outcome_of(asyncio.create_task(run(client, work))) == plain
    await check_ended(client)


async def cancel_once(running: "asyncio.Task[object]") -> None:
    running.cancel()


async def cancel_twice(running: "asyncio.Task[object]") -> None:
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()


async def cancel_until_done(running: "asyncio.Task[object]") -> None:
    for _ in range(20):
        running.cancel()
        await asyncio.sleep(0)


STOPS = {"once": cancel_once, "twice": cancel_twice, "until done": cancel_until_done}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("framework", RUNS)
async def test_a_cancelled_agent_has_the_same_outcome(client: AsyncClient, framework: str, stop: str) -> None:
    at_work = asyncio.Event()

    async def work() -> str:
        at_work.set()
        await asyncio.Event().wait()
        return "never"

    outcomes = []
    for recorder in (None, client):
        at_work.clear()
        running = asyncio.create_task(RUNS[framework](recorder, work))
        await at_work.wait()
        await STOPS[stop](running)
        outcomes.append((await outcome_of(running), running.cancelled()))
    assert outcomes[0] == outcomes[1]
    assert (await check_ended(client)).result.state == "cancelled"


@pytest.mark.parametrize("framework", RUNS)
async def test_an_agent_in_a_cancelled_scope_of_anyio_ends_within_it(client: AsyncClient, framework: str) -> None:
    at_work = asyncio.Event()

    async def work() -> str:
        at_work.set()
        await anyio.sleep_forever()
        return "never"

    async def run_in_scope(recorder: AsyncClient | None) -> bool:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().create_task(cancel_when_at_work(scope))
            await RUNS[framework](recorder, work)
        return scope.cancelled_caught

    async def cancel_when_at_work(scope: anyio.CancelScope) -> None:
        await at_work.wait()
        at_work.clear()
        scope.cancel()

    for recorder in (None, client):
        assert await run_in_scope(recorder)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert (await check_ended(client)).result.state == "cancelled"


@pytest.mark.parametrize("framework", RUNS)
async def test_a_time_limit_around_an_agent_expires_as_without(client: AsyncClient, framework: str) -> None:
    async def run_with_limit(recorder: AsyncClient | None) -> object:
        async with asyncio.timeout(None) as limit:

            async def work() -> str:
                limit.reschedule(0)
                await asyncio.Event().wait()
                return "never"

            return await RUNS[framework](recorder, work)

    for recorder in (None, client):
        assert await outcome_of(run_with_limit(recorder)) == ("TimeoutError", ())
    assert (await check_ended(client)).result.state == "cancelled"


@pytest.mark.parametrize("framework", RUNS)
async def test_an_agent_whose_run_is_cancelled_leaves_its_task_as_it_was(client: AsyncClient, framework: str) -> None:
    at_work = asyncio.Event()

    async def work() -> str:
        at_work.set()
        await asyncio.Event().wait()
        return "never"

    async def run_and_continue() -> object:
        outcome = await outcome_of(RUNS[framework](client, work))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # a cancellation that is left over would be raised here
        return outcome

    running = asyncio.create_task(run_and_continue())
    await at_work.wait()
    (run,) = [run async for run in client.runs.list()]
    await client.runs.cancel(run.id, "enough")
    assert "Cancelled" in str(await running)
    assert (await check_ended(client)).result.state == "cancelled"


@pytest.mark.parametrize("inner", ["pydantic-ai", "openai-agents", "langchain"])
@pytest.mark.parametrize("outer", ["pydantic-ai", "openai-agents", "langchain"])
async def test_an_agent_in_a_tool_of_another_framework_is_a_step_of_the_tool(
    client: AsyncClient, outer: str, inner: str
) -> None:
    async def work() -> str:
        return "worked"

    async def delegate() -> str:
        return str(await RUNS[inner](client, work))

    assert "done" in str(await RUNS[outer](client, delegate))
    recording = await check_ended(client)
    steps = {step.id: step for top in recording.steps for step in top.walk()}
    tools = [step for step in steps.values() if step.name == "work"]
    assert len(tools) == 2
    (within,) = [step for step in tools if step.parent_id and any(up.name == "work" for up in around(step, steps))]
    assert within.state == "succeeded"


def around(step: Step, steps: dict[str, Step]) -> list[Step]:
    """Return the steps around a step, the innermost first."""
    found = []
    while step.parent_id:
        step = steps[step.parent_id]
        found.append(step)
    return found


async def leave_pydantic_ai_iter(client: AsyncClient | None, work: Work) -> None:
    agent = Agent(TestModel(), name="agent", deps_type=type(None))
    agent.tool_plain(name="work")(work)
    async with agent.iter("go", deps=None, capabilities=[LavantCapability(client)] if client else []) as run:
        async for _ in run:
            break


async def leave_pydantic_ai_stream(client: AsyncClient | None, work: Work) -> None:
    agent = Agent(TestModel(custom_output_text="It is cold."), name="agent", deps_type=type(None))
    capabilities = [LavantCapability[None](client)] if client else []
    async with agent.run_stream("go", deps=None, capabilities=capabilities) as streamed:
        async for _ in streamed.stream_text(debounce_by=None):
            break


async def leave_langchain(client: AsyncClient | None, work: Work) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("It is cold.")]))
    chunks = model.astream("go", {"callbacks": [AsyncLavantCallbackHandler(client)] if client else []})
    async for _ in chunks:
        break
    await chunks.aclose()  # type: ignore[attr-defined]


async def leave_openai_agents(client: AsyncClient | None, work: Work) -> None:
    agent = one_call(function_tool(work, name_override="work"))
    async with LavantRunner(client or AsyncClient("127.0.0.1:9")).run_streamed(agent, "go") as streamed:
        events = streamed.stream_events()
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]


LEAVE = {
    "pydantic-ai iter": leave_pydantic_ai_iter,
    "pydantic-ai stream": leave_pydantic_ai_stream,
    "langchain": leave_langchain,
    "openai-agents": leave_openai_agents,
}


@pytest.mark.parametrize("framework", LEAVE)
async def test_a_stream_that_is_left_early_ends_its_run(client: AsyncClient, framework: str) -> None:
    async def work() -> str:
        return "worked"

    await LEAVE[framework](client, work)
    await check_ended(client)


def test_a_blocking_stream_that_is_left_early_ends_its_run(server_process: ServerProcess) -> None:
    with Client(server_process.target) as client:
        models = [GenericFakeChatModel(messages=iter([AIMessage("It is cold.")])) for _ in range(2)]
        # LangChain itself reports that a sequence which is left early has ended with what came by then.
        runnables: list[tuple[Any, str]] = [
            (models[0], "cancelled"),
            (RunnableLambda(lambda text: text) | models[1], "succeeded"),
        ]
        for runnable, state in runnables:
            chunks = runnable.stream("go", {"callbacks": [LavantCallbackHandler(client)]})
            next(chunks)
            chunks.close()
            assert client.runs.wait(next(client.runs.list()).id, timeout=30).state == state
