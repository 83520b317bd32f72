"""No argument of a producer's methods raises into the application, ends the recording or fails the run."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from lavant.client import AsyncClient, AsyncRunProducer, Client, ProducerOptions, RunState, Usage
from support.server import Server


class Hostile:
    """Raises whatever is asked of it."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise TypeError(name)

    def __repr__(self) -> str:
        raise MemoryError

    def __str__(self) -> str:
        raise RecursionError

    def __bool__(self) -> bool:
        raise ValueError("neither")

    def __len__(self) -> int:
        raise OverflowError

    def __hash__(self) -> int:
        raise UnicodeError

    def __eq__(self, other: object) -> bool:
        raise KeyError(other)


class Empty(Exception):
    """An error that is false, and has a status that it does not want to be asked for."""

    @property
    def status_code(self) -> int:
        raise RuntimeError("asked")

    def __len__(self) -> int:
        return 0


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "none": None,
    "number": 5,
    "large number": 1 << 200,
    "not a number": math.nan,
    "bytes": b"\xff",
    "nothing": "",
    "surrogate": "\ud83d",
    "control characters": "a\x00\n",
    "long": "x" * 5_000,
    "too long": "x" * 2_000_000,
    "deep": nested(50_000),
    "mapping": {1: 2},
    "iterator": iter([1]),
    "error": Empty("false"),
    "usage": Usage(cost_usd=math.nan),
    "hostile": Hostile(),
}
odd = pytest.mark.parametrize("value", ODD.values(), ids=ODD.keys())


async def within(block: AbstractAsyncContextManager[Any], value: Any) -> None:
    """Enter a block, set all that it has to a value, and leave it."""
    async with block as entered:
        for name in ("output", "result", "usage", "finish_reason"):
            if name in vars(entered):
                setattr(entered, name, value)
        for name in ("text", "reasoning", "output"):
            if asyncio.iscoroutinefunction(getattr(type(entered), name, None)):
                await getattr(entered, name)(value)


def acts(value: Any) -> dict[str, Callable[[AsyncRunProducer], Awaitable[object]]]:
    """Return every method of a producer, called with a value for each of its arguments."""
    return {
        "text": lambda run: run.text(value),
        "reasoning": lambda run: run.reasoning(value),
        "message": lambda run: within(run.message(value, value), value),
        "step": lambda run: within(run.step(value, value, input=value, attempt=value, step_id=value), value),
        "tool": lambda run: within(run.tool(value, value, tool_call_id=value), value),
        "progress": lambda run: run.progress(value, value, value, iteration=value, usage=value),
        "error": lambda run: run.error(value),
        "state": lambda run: run.state(value, value),
        "custom": lambda run: run.custom(value, value),
        "file": lambda run: run.artifact(value, value, media_type=value, artifact_id=value, append=value),
        "link": lambda run: run.artifact(value, uri=value),
        "publish": lambda run: run.publish(value),
        "enqueue": lambda run: asyncio.sleep(0, run.enqueue(value)),
    }


@odd
async def test_a_method_that_cannot_record_an_argument_costs_no_more_than_that(client: AsyncClient, value: Any) -> None:
    async with client.runs.start("agent") as run:
        for name, act in acts(value).items():
            await act(run)
            async with run.message() as message:
                await message.text(f"after {name}; ")
        run.output = run.usage = run.summary = value
    assert (await client.runs.get(run.id)).state is RunState.SUCCEEDED
    said = await client.runs.stream(run.id).text()
    assert [name for name in acts(value) if f"after {name}; " not in said] == []


ARGUMENTS = ["name", "input", "run_id", "kind", "labels", "parent_run_id", "conversation_id", "producer_timeout"]


@odd
@pytest.mark.parametrize("argument", [*ARGUMENTS, "model", "version", "options"])
async def test_a_run_starts_with_any_argument(client: AsyncClient, argument: str, value: Any) -> None:
    given: dict[str, Any] = {"name": "agent", argument: value}
    async with client.runs.start(**given) as run:
        await run.text("said")
    assert (await client.runs.get(run.id)).state is RunState.SUCCEEDED
    assert await client.runs.stream(run.id).text() == "said"


@odd
async def test_a_run_ends_with_any_error(client: AsyncClient, value: Any) -> None:
    run = client.runs.start("agent").begin()
    run.end(value)
    assert await run.flush()
    state = (await client.runs.get(run.id)).state
    assert state is (RunState.SUCCEEDED if value is None else RunState.FAILED)


async def test_an_error_that_is_false_fails_what_raised_it(client: AsyncClient) -> None:
    run = client.runs.start("agent")
    with pytest.raises(Empty):
        async with run, run.step("plan"), run.tool("search"):
            raise Empty
    assert (await client.runs.get(run.id)).state is RunState.FAILED
    [step] = (await client.runs.stream(run.id).collect(raise_for_state=False)).steps
    assert step.error is not None


async def test_a_clock_that_raises_costs_its_time_alone(client: AsyncClient) -> None:
    def clock() -> int:
        raise OSError("no time")

    async with client.runs.start("agent", options=ProducerOptions(clock=clock)) as run:
        await run.text("said")
    assert await client.runs.stream(run.id).text() == "said"


@odd
async def test_the_blocking_client_takes_any_argument_too(server: Server, value: Any) -> None:
    def work() -> None:
        with Client(server.target) as client:
            with client.runs.start("agent", run_id="run", input=value, labels=value) as run:
                run.text(value)
                run.custom(value, value)
                with run.step(value, value, step_id=value) as step, run.tool(value, value) as tool:
                    step.output = tool.result = value
                run.publish(value)
                with run.message() as message:
                    message.text("after")
            assert client.runs.get("run").state is RunState.SUCCEEDED
            assert client.runs.stream("run").text().endswith("after")

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    "options", [{"queue_bytes": 0}, {"close_timeout": math.nan}, {"producer_id": ""}, {"producer_epoch": -1}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ProducerOptions(**options)
