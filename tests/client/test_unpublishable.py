"""What cannot be published never raises into an agent that did not ask for it, and no run stays open for it."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lavant.client import AsyncClient, AsyncRunProducer, Client, InvalidField, RunProducer, RunState, Usage
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED
from support.server import Server
from support.streams import recorded

CYCLE: list[Any] = []
CYCLE.append(CYCLE)
LARGE = "x" * 2_000_000
Act = Callable[[AsyncRunProducer], Awaitable[None]]


async def a_tools_result(run: AsyncRunProducer) -> None:
    async with run.tool("search") as tool:
        tool.result = CYCLE


async def a_tools_arguments(run: AsyncRunProducer) -> None:
    async with run.tool("search", CYCLE) as tool:
        await tool.output("half")


async def a_tools_id(run: AsyncRunProducer) -> None:
    async with run.tool("search", tool_call_id="x" * 200):
        pass


async def a_steps_input(run: AsyncRunProducer) -> None:
    async with run.step("plan", input=CYCLE):
        await run.text("within")


async def a_steps_output(run: AsyncRunProducer) -> None:
    async with run.step("plan") as step:
        step.output = CYCLE


async def an_artifact(run: AsyncRunProducer) -> None:
    await run.artifact("a.txt", "text")  # type: ignore[arg-type]


async def the_output(run: AsyncRunProducer) -> None:
    run.output = CYCLE


async def a_large_output(run: AsyncRunProducer) -> None:
    run.output = LARGE


async def the_cost(run: AsyncRunProducer) -> None:
    run.usage = Usage(cost_usd=math.nan)


ACTS: dict[str, Act] = {
    "a cycle": lambda run: run.custom("a.b", CYCLE),
    "a large event": lambda run: run.custom("a.b", LARGE),
    "a large state": lambda run: run.state(LARGE),
    "a cyclic state": lambda run: run.state(CYCLE),
    "no text": lambda run: run.text(None),  # type: ignore[arg-type]
    "no label": lambda run: run.progress(object()),  # type: ignore[arg-type]
    "too large a number": lambda run: run.progress("rows", 1 << 80),
    "no bytes": an_artifact,
    "a tool's result": a_tools_result,
    "a tool's arguments": a_tools_arguments,
    "a tool's id": a_tools_id,
    "a step's input": a_steps_input,
    "a step's output": a_steps_output,
    "the output": the_output,
    "a large output": a_large_output,
    "no number": lambda run: run.progress(usage=Usage(cost_usd=math.inf)),
    "the cost": the_cost,
}
acts = pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())


async def ended(server: Server) -> tuple[RunState, list[str]]:
    """How the run ended, and the types of its first and last event."""
    async with AsyncClient(server.target) as client:
        state = (await client.runs.get("run")).state
    log = await recorded(server.stubs)
    return state, [str(event.WhichOneof("payload")) for event in (log[0], log[-1])]


FAILED = (RunState.FAILED, ["run_started", "run_finished"])


@acts
@pytest.mark.parametrize("flushes", [True, False])
async def test_work_goes_on_and_the_run_ends(
    server: Server, client: AsyncClient, caplog: pytest.LogCaptureFixture, act: Act, flushes: bool
) -> None:
    async with client.runs.start("agent", run_id="run") as run:
        if flushes:
            await run.flush()
        await act(run)
        await run.text("more")
    assert await ended(server) == FAILED
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@acts
async def test_who_asks_for_it_gets_the_error(server: Server, client: AsyncClient, act: Act) -> None:
    async def work() -> None:
        async with client.runs.start("agent", run_id="run", on_error="raise") as run:
            await act(run)

    with pytest.raises((InvalidField, ValueError, TypeError)):
        await work()
    assert await ended(server) == FAILED


@pytest.mark.parametrize("given", [CYCLE, LARGE], ids=["cyclic", "large"])
async def test_of_input_that_cannot_be_published_the_beginning_is(
    server: Server, client: AsyncClient, given: object
) -> None:
    async with client.runs.start("agent", run_id="run", input=given) as run:
        await run.text("more")
    first, *_, last = await recorded(server.stubs)
    assert 0 < len(first.run_started.input_json) < 10_000
    assert last.run_finished.state == RUN_STATE_SUCCEEDED


async def test_what_the_server_refused_is_given_up_and_what_was_stored_before_stays(
    server: Server, client: AsyncClient
) -> None:
    run = client.runs.start("agent", run_id="run", on_error="raise")
    await run.__aenter__()
    await run.custom("a.b", 1)
    await run.flush()
    await a_tools_id(run)
    for number in range(1_000):
        await run.custom("a.b", number)
    with pytest.raises(InvalidField, match="tool_call_id"):
        await run.flush()
    with pytest.raises(InvalidField, match="tool_call_id"):
        await run.__aexit__(None, None, None)
    types = [str(event.WhichOneof("payload")) for event in await recorded(server.stubs)]
    assert types == ["run_started", "custom", "run_finished"]


def blocking_a_tools_id(run: RunProducer) -> None:
    with run.tool("search", tool_call_id="x" * 200):
        pass


@pytest.mark.parametrize("act", [lambda run: run.custom("a.b", CYCLE), blocking_a_tools_id], ids=["cycle", "refused"])
async def test_the_blocking_client_does_the_same(server: Server, act: Callable[[RunProducer], None]) -> None:
    def work() -> None:
        with Client(server.target) as client, client.runs.start("agent", run_id="run") as run:
            act(run)
            run.text("more")

    await asyncio.to_thread(work)
    assert await ended(server) == FAILED
