"""Values that pass through recorded agents of pydantic-ai: left alone, however odd."""

import io
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCalls, FunctionModel

from client.integrations.pydantic_ai.test_unchanged import messages_of
from lavant.client import AsyncClient, RunState
from lavant.client.integrations.agent_streaming import collect_stream_result
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.pydantic_ai import call, scripted, turn_of


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("must be left alone")

    __repr__ = __str__ = __eq__ = __hash__ = __iter__ = __len__ = __bool__ = __getattr__ = __call__ = _refuse


async def agenerate() -> AsyncIterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


ONCE: dict[str, Callable[[], Any]] = {
    "map": lambda: map(str, [1, 2]),
    "generator": lambda: (str(number) for number in (1, 2)),
    "iterator": lambda: iter(["1", "2"]),
    "zip": lambda: zip("12", "34", strict=True),
}


@pytest.mark.parametrize("name", ONCE)
async def test_the_model_is_given_what_a_tool_returns_to_be_read_once(client: AsyncClient, name: str) -> None:
    given: list[str] = []

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if turn_of(messages) == 0:
            yield call(0, "rows")
            return
        parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        given.extend(part.model_response_str() for part in parts)
        yield "done"

    agent = Agent(FunctionModel(stream_function=respond), deps_type=type(None))
    agent.tool_plain(name="rows")(ONCE[name])
    await collect_stream_result(agent, "go")
    await agent.run("go", deps=None, capabilities=[LavantCapability(client, run_id="r")])
    assert given[0] == given[1] != "[]"
    (used,) = [used async for used in client.runs.stream("r").tool_calls]
    assert set(used.result) == {"type"}


def cyclic() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


ODD: dict[str, Callable[[], Any]] = {
    "generator": lambda: (number for number in (1, 2)),
    "endless": itertools.count,
    "async generator": agenerate,
    "file": lambda: io.StringIO("1\n2\n"),
    "hostile": Hostile,
    "lambda": lambda: lambda: 1,
    "cyclic": cyclic,
    "surrogate": lambda: "\ud83d",
    "large number": lambda: 10**5_000,
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_values_pass_through_an_agent_as_they_are(client: AsyncClient, name: str) -> None:
    made: Any = ODD[name]()
    seen: list[object] = []

    async def respond(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "done"

    agent = Agent(
        FunctionModel(stream_function=respond),
        deps_type=object,
        output_type=lambda_output(made),
        capabilities=[LavantCapability(client, run_id="r")],
    )

    @agent.instructions
    def note(ctx: RunContext[object]) -> str:
        seen.append(ctx.deps)
        return "Be brief."

    result = await agent.run("go", deps=made)
    assert cast("object", result.output) is made
    assert seen[0] is made
    run = await client.runs.get("r")
    assert run.state is RunState.SUCCEEDED
    assert run.result is not None
    if name == "file":
        assert cast("io.StringIO", made).read() == "1\n2\n"
    if name in ("generator", "endless"):
        assert next(cast("Iterator[int]", made)) in (0, 1)


def lambda_output(value: object) -> Any:
    """An output function that returns a value as it is."""
    from pydantic_ai.output import TextOutput

    def given(_: str) -> Any:
        return value

    return TextOutput(given)


ARGUMENTS = {
    "brackets": "[" * 20_000,
    "braces": '{"a":' * 20_000,
    "nothing": "",
    "no object": "[1]",
    "no JSON": "{oops",
}


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_malformed_arguments_reach_the_agent_as_without_a_recorder(client: AsyncClient, name: str) -> None:
    said = []
    for capabilities in ([], [LavantCapability[None](client, run_id="r")]):
        model = scripted([call(0, "look", ARGUMENTS[name])], ["done"])
        agent = Agent(model, deps_type=type(None))

        @agent.tool_plain
        def look(q: int = 0) -> int:
            return q

        result, events = await collect_stream_result(agent, "go", capabilities=capabilities)
        said.append((result.output, messages_of(result.all_messages()), [event.event_type for event in events]))
    assert said[0] == said[1]
    assert (await client.runs.get("r")).state is RunState.SUCCEEDED
    (used,) = [used async for used in client.runs.stream("r").tool_calls]
    assert used.name == "look"
