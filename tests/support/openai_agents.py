"""Agents of the OpenAI Agents SDK that follow a script, and what was recorded of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, ModelResponse, Tool, set_trace_processors, set_tracing_disabled
from agents import Usage as AgentUsage
from agents.items import TResponseOutputItem
from agents.testing import ScriptedModel, assistant_message, function_call

from lavant.client import AsyncClient, Event, Run
from lavant.client.event_data import StepFinished, StepStarted

USAGE = AgentUsage(requests=1, input_tokens=5, output_tokens=2, total_tokens=7)


@pytest.fixture(autouse=True)
def offline() -> Iterator[None]:
    """Keep the SDK from exporting its traces, in every test of a module that imports this."""
    set_trace_processors([])
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(True)


def says(*output: TResponseOutputItem) -> ModelResponse:
    """Return a whole answer."""
    return ModelResponse(output=list(output), usage=USAGE, response_id=None)


def scripted(*turns: TResponseOutputItem | list[TResponseOutputItem]) -> ScriptedModel:
    """Return a model that answers with these items, one turn a request."""
    return ScriptedModel([says(*turn) if isinstance(turn, list) else says(turn) for turn in turns])


def one_call(*tools: Tool) -> Agent[None]:
    """Return an agent that calls its tools once, and is done."""
    model = scripted(calls(*(tool.name for tool in tools)), assistant_message("done"))
    return Agent("a", model=model, tools=list(tools))


def calls(*names: str) -> list[TResponseOutputItem]:
    """Call these tools, all in one answer."""
    return [function_call(name, "{}", call_id=f"call-{index}") for index, name in enumerate(names)]


async def newest(client: AsyncClient) -> Run:
    """Return the run that began last."""
    return await anext(client.runs.list())


async def log(client: AsyncClient, run: Run) -> list[Event]:
    """Return all events of a run."""
    return [event async for event in client.runs.events(run.id, page_size=1_000)]


async def of_type(client: AsyncClient, run: Run, kind: str) -> list[Any]:
    """Return the data of the events of a type."""
    return [event.data for event in await log(client, run) if event.type == kind]


async def tree(client: AsyncClient, run: Run) -> dict[str, list[str]]:
    """Return each step's name, and the sorted names of the steps in it; under the empty name, the run's own."""
    steps: list[StepStarted] = await of_type(client, run, "step_started")
    names = {"": "", **{step.step_id: step.name for step in steps}}
    found: dict[str, list[str]] = {}
    for step in steps:
        found.setdefault(names[step.parent_step_id], []).append(step.name)
    return {name: sorted(inner) for name, inner in found.items()}


async def states(client: AsyncClient, run: Run) -> dict[str, str]:
    """Return how each step ended, by its name; all must have."""
    names = {step.step_id: step.name for step in await of_type(client, run, "step_started")}
    finished: list[StepFinished] = await of_type(client, run, "step_finished")
    assert {step.step_id for step in finished} == names.keys()
    return {names[step.step_id]: step.state.name for step in finished}
