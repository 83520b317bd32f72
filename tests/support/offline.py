"""What examples are run with: recorded runs, and each framework with a model that needs no network."""

from typing import Any

from lavant.client import AsyncClient, EvaluationSummary
from lavant.v1.event_pb2 import Event, RowFinished
from lavant.v1.run_pb2 import RunState
from support.calls import append, create
from support.events import run_finished, run_started
from support.server import Stubs

ANSWER = "It is cold."


async def runs(client: AsyncClient, stubs: Stubs) -> dict[str, str]:
    """Record a run that ends well, one that fails, one that times out; return their ids, and a token of the first."""
    await create(stubs, "timed-out")
    await append(stubs, [run_started(), run_finished(RunState.RUN_STATE_TIMED_OUT)], run_id="timed-out")
    async with client.runs.start("weather-agent") as run:
        async with run.step("plan"), run.tool("search_web", {"q": "Oslo"}) as tool:
            tool.result = ["-3 °C"]
        await run.text(ANSWER)
        run.output = {"answer": "cold"}
    try:
        async with client.runs.start("weather-agent") as failed:
            raise LookupError("no such city")
    except LookupError:
        pass
    stream = client.runs.stream(run.id)
    await anext(stream)
    ids = {"run_id": run.id, "failed_id": failed.id, "timed_out_id": "timed-out", "token": stream.resume_token}
    return ids | {"evaluation_id": await evaluation(client)}


async def evaluation(client: AsyncClient, evaluation_id: str | None = None) -> str:
    """Record an evaluation of two rows, one right and one wrong."""
    async with client.runs.start("cities", kind="evaluation", run_id=evaluation_id) as run:
        for number, passed in enumerate((True, False), 1):
            row = RowFinished(row_id=f"case {number}", iteration=1)
            row.scores.add(name="correct", passed=passed)
            await run.publish(Event(row_finished=row))
            await run.progress("rows", number, 2)
        run.summary = EvaluationSummary(rows_succeeded=2, rows_failed=0, mean_scores={"correct": 0.5}, accuracy=0.5)
    return run.id


def names(module: str) -> dict[str, Any]:
    """Return the names that the examples of an integration use."""
    match module.rpartition(".")[2]:
        case "client":
            from pydantic_evals import Case, Dataset
            from pydantic_evals.evaluators import EqualsExpected

            return {"Case": Case, "Dataset": Dataset, "EqualsExpected": EqualsExpected}
        case "pydantic_ai" | "agent_streaming":
            return _pydantic_ai()
        case "pydantic_deep":
            return _pydantic_deep()
        case "openai_agents":
            return _openai_agents()
        case "langchain":
            return _langchain()
        case "judging":
            from support.judges import judge_of

            return {"model": judge_of(0.9).model}
        case "opentelemetry":
            from opentelemetry.sdk.trace import TracerProvider

            return {"TracerProvider": TracerProvider}
    return {}


def _pydantic_ai() -> dict[str, Any]:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    model = TestModel(custom_output_text=ANSWER)
    agent = Agent(model, name="weather-agent", tools=[search_web])
    return {"Agent": Agent, "model": model, "agent": agent}


def _pydantic_deep() -> dict[str, Any]:
    from pydantic_ai.models.test import TestModel
    from pydantic_deep import DeepAgentDeps, create_deep_agent  # type: ignore[import-untyped]

    off = ("web_search", "web_fetch", "thinking", "include_skills", "include_memory", "cost_tracking")
    return {
        "create_deep_agent": create_deep_agent,
        "DeepAgentDeps": DeepAgentDeps,
        "model": TestModel(call_tools=[], custom_output_text=ANSWER),
        "offline": dict.fromkeys(off, False),
    }


def _openai_agents() -> dict[str, Any]:
    from agents import Agent, set_trace_processors
    from agents.testing import ScriptedModel, assistant_message, function_call

    set_trace_processors([])  # The SDK would export its traces.
    call = function_call("forecast", '{"input": "Oslo"}', call_id="call-1")
    return {
        "Agent": Agent,
        "model": ScriptedModel([[assistant_message(ANSWER)]]),
        "calling_model": ScriptedModel([[call], [assistant_message(ANSWER)]]),
    }


def _langchain() -> dict[str, Any]:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.prompts import ChatPromptTemplate

    return {
        "ChatPromptTemplate": ChatPromptTemplate,
        "model": GenericFakeChatModel(messages=iter([AIMessage(ANSWER)])),
    }


def search_web(q: str) -> list[str]:
    """Search the web."""
    return [f"{q}: -3 °C"]
