"""Stubs in place of the tools of evaluated agents."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.toolsets import FunctionToolset
from pydantic_evals import Case, Dataset

from lavant.client import AsyncClient, StubCall
from lavant.client.integrations.pydantic_ai import LavantCapability

TURNS = 2


async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    """Search twice, make a note, and answer with the results."""
    came_back = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if len(came_back) < TURNS:
        yield {0: DeltaToolCall(name="search_web", json_args='{"q": "Oslo"}', tool_call_id=f"c{len(came_back)}")}
    elif len(came_back) == TURNS:
        yield {0: DeltaToolCall(name="note", json_args="{}", tool_call_id="n")}
    else:
        yield " ".join(map(str, came_back))


def note() -> str:
    return "noted"


def search_web(q: str) -> str:
    raise AssertionError("the real tool was called")


def agent_of(*, in_toolset: bool) -> Agent[None, str]:
    model = FunctionModel(stream_function=respond)
    if in_toolset:
        return Agent(model, tools=[note], toolsets=[FunctionToolset([search_web])])
    return Agent(model, tools=[note, search_web])


def cases(count: int) -> Dataset[str, str, str]:
    return Dataset(name="d", cases=[Case(name=f"case {n}", inputs="go", metadata=f"meta {n}") for n in range(count)])


@pytest.mark.parametrize("in_toolset", [True, False])
async def test_a_stub_answers_by_case_and_call(client: AsyncClient, in_toolset: bool) -> None:
    agent = agent_of(in_toolset=in_toolset)
    all_at_work = asyncio.Barrier(6)

    async def stub(q: str, call: StubCall) -> str:
        if call.index == 0:
            await all_at_work.wait()
        return f"{q}/{call.case.metadata}/{call.iteration}/{call.index}"

    async def task(prompt: str) -> str:
        return (await agent.run(prompt, capabilities=[LavantCapability[None](client)])).output

    evaluation = await client.evaluations.run(
        cases(3), task, iterations=2, stubs={"search_web": stub}, passthrough=["note"], agent=agent
    )
    assert [row.output for row in evaluation.rows] == [
        f"Oslo/meta {n}/{iteration}/0 Oslo/meta {n}/{iteration}/1 noted" for n in range(3) for iteration in (1, 2)
    ]


async def test_a_stub_may_be_plain_and_is_gone_afterwards(client: AsyncClient) -> None:
    agent = agent_of(in_toolset=False)

    async def task(prompt: str) -> str:
        return (await agent.run(prompt, capabilities=[LavantCapability[None](client)])).output

    evaluation = await client.evaluations.run(
        cases(1), task, stubs={"search_web": lambda q: q}, passthrough=["note"], agent=agent
    )
    assert evaluation.rows[0].output == "Oslo Oslo noted"
    with pytest.raises(AssertionError, match="the real tool was called"):
        await task("go")


async def test_stubs_need_an_agent(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="pass the agent that the task runs, as agent="):
        await client.evaluations.run(cases(1), str, stubs={"search_web": str})


@pytest.mark.parametrize("in_toolset", [True, False])
@pytest.mark.parametrize("wrong", [{"stubs": {"serch_web": str}}, {"stubs": {"note": str}, "passthrough": ["sarch"]}])
async def test_a_name_that_is_no_tools_is_refused_before_anything_runs(
    client: AsyncClient, in_toolset: bool, wrong: dict[str, Any]
) -> None:
    def task(prompt: str) -> str:
        raise AssertionError("it was run")

    with pytest.raises(ValueError, match="; its tools are: note, search"):
        await client.evaluations.run(cases(1), task, agent=agent_of(in_toolset=in_toolset), **wrong)


async def test_a_real_tool_never_runs_beside_stubs(client: AsyncClient) -> None:
    agent = agent_of(in_toolset=False)

    async def task(prompt: str) -> str:
        return (await agent.run(prompt, capabilities=[LavantCapability[None](client)])).output

    evaluation = await client.evaluations.run(cases(1), task, stubs={"note": lambda: "stub"}, agent=agent)
    error = evaluation.rows[0].error
    assert error is not None
    assert "the tool 'search_web' was called and has no stub" in error.message


async def test_a_stub_of_other_parameters_says_so(client: AsyncClient) -> None:
    agent = agent_of(in_toolset=False)

    async def task(prompt: str) -> str:
        return (await agent.run(prompt, capabilities=[LavantCapability[None](client)])).output

    stubs: dict[str, Callable[..., str]] = {"search_web": lambda query: query, "note": lambda: "stub"}
    evaluation = await client.evaluations.run(cases(1), task, stubs=stubs, agent=agent)
    error = evaluation.rows[0].error
    assert error is not None
    assert "the stub of tool 'search_web' does not take its arguments (q)" in error.message


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"passthrough": ["note"]}, "there are no stubs"),
        ({"stubs": {"note": str}, "passthrough": ["note"]}, "note: a tool has a stub or is passed through, not both"),
        ({"stubs": {"note": str}, "passthrough": "note"}, "passthrough must be several words"),
    ],
)
async def test_what_contradicts_itself_is_refused(client: AsyncClient, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await client.evaluations.run(cases(1), str, agent=agent_of(in_toolset=False), **wrong)
