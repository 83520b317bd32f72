"""Stored runs as evaluators see them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import ApprovalRequired
from pydantic_ai.exceptions import RunCancelled as AgentCancelled
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests, Tool
from pydantic_evals.evaluators import EvaluatorContext
from pydantic_evals.otel.span_tree import SpanNode

from lavant.client import AsyncClient, Recording, Run, RunNotEnded, Usage
from lavant.client.evals import context_of
from lavant.client.integrations.pydantic_ai import LavantCapability
from lavant.v1.run_pb2 import RUN_STATE_ABANDONED
from support.calls import append, create
from support.events import run_finished, run_started, step_finished, step_started, tool_call_finished, tool_call_started
from support.server import Server

Context = EvaluatorContext[Any, Any, Any]


async def newest(client: AsyncClient) -> Run:
    return await anext(client.runs.list())


async def collected(client: AsyncClient, run_id: str) -> Recording:
    return await client.runs.stream(run_id).collect(raise_for_state=False)


async def context(client: AsyncClient, run: Run) -> Context:
    return await context_of(await collected(client, run.id), run=run)


def outline(context: Context) -> list[str]:
    """The tree of spans, a line for each, indented."""
    lines: list[str] = []

    def add(node: SpanNode, depth: int) -> None:
        lines.append(f"{'  ' * depth}{node.name} {node.status}")
        for child in node.children:
            add(child, depth + 1)

    for root in context.span_tree.roots:
        add(root, 0)
    return lines


def span(context: Context, name: str) -> SpanNode:
    (found,) = context.span_tree.find({"name_equals": name})
    return found


async def weather_run(client: AsyncClient) -> Run:
    async with client.runs.start(
        "weather-agent", input={"city": "Oslo"}, labels={"team": "north"}, model="gpt-5", version="3"
    ) as run:
        async with run.step("plan") as plan, run.step("ask", "model_request") as request:
            await run.text("I look.")
            request.usage = Usage(input_tokens=12, output_tokens=4, requests=1, cost_usd=0.5)
        async with run.tool("search_web", {"q": "Oslo"}, tool_call_id="call-1") as tool:
            tool.result = ["-3 °C"]
        await run.error("the cache is cold")
        await run.text("It is cold.")
        run.output = {"answer": "cold"}
    assert plan.id
    return await client.runs.get(run.id)


async def test_all_of_a_run_is_there(client: AsyncClient) -> None:
    run = await weather_run(client)
    made = await context(client, run)
    assert (made.name, made.inputs, made.output) == ("weather-agent", {"city": "Oslo"}, {"answer": "cold"})
    assert (made.metadata, made.expected_output) == ({"team": "north"}, None)
    assert made.attributes == {
        "run_id": run.id,
        "state": "succeeded",
        "error": None,
        "errors": [{"message": "the cache is cold", "type": "", "retryable": False, "details": None}],
        "version": "3",
        "model": "gpt-5",
    }
    assert run.result is not None
    assert run.result.duration == timedelta(seconds=made.duration)
    assert made.metrics == {
        "duration": made.duration,
        "tool_calls": 1,
        "requests": 1,
        "input_tokens": 12,
        "output_tokens": 4,
        "cost": 0.5,
    }
    assert outline(made) == [
        "invoke_agent weather-agent ok",
        "  plan ok",
        "    chat gpt-5 ok",
        "  execute_tool search_web ok",
    ]
    assert span(made, "execute_tool search_web").attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search_web",
        "gen_ai.tool.call.id": "call-1",
        "gen_ai.tool.call.arguments": '{"q":"Oslo"}',
        "gen_ai.tool.call.result": '["-3 °C"]',
    }
    assert span(made, "chat gpt-5").attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 4,
        "operation.cost": 0.5,
    }
    assert span(made, "plan").attributes == {"lavant.step.kind": "workflow"}


async def test_spans_have_the_duration_of_their_events(client: AsyncClient) -> None:
    run = await weather_run(client)
    recording = await collected(client, run.id)
    made = await context_of(recording)
    times = {event.type: event.time for event in recording.events}  # the last of each type
    assert span(made, "execute_tool search_web").start_timestamp == times["tool_call_started"]
    assert span(made, "execute_tool search_web").end_timestamp == times["tool_call_finished"]
    assert span(made, "plan").end_timestamp == times["step_finished"]
    assert span(made, "chat gpt-5").start_timestamp == times["step_started"]
    root = span(made, f"invoke_agent {run.id}")
    assert (root.start_timestamp, root.end_timestamp) == (times["run_started"], times["run_finished"])


async def test_events_make_the_same_as_a_recording(client: AsyncClient) -> None:
    run = await weather_run(client)
    from_events = await context_of(client.runs.events(run.id), run=run, expected_output=1)
    from_stream = await context_of(client.runs.stream(run.id), run=run, expected_output=1)
    from_recording = await context_of(await collected(client, run.id), run=run, expected_output=1)
    assert from_events == from_stream == from_recording
    assert from_events.expected_output == 1


async def test_what_is_no_whole_run_is_refused(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.flush()
        with pytest.raises(RunNotEnded, match="the events end before the run"):
            await context_of(client.runs.events(run.id))
    nothing = (await collected(client, run.id)).model_copy(update={"events": ()})
    with pytest.raises(ValueError, match="there are no events of the run"):
        await context_of(nothing)


async def test_a_run_without_output_is_evaluated_by_its_text(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.text("It is cold.")
    made = await context_of(await collected(client, run.id))
    assert (made.name, made.inputs, made.output, made.metadata) == (run.id, None, "It is cold.", {})
    assert made.metrics == {"duration": made.duration, "tool_calls": 0, "requests": 0}


async def test_five_tools_at_once_and_one_asks_to_try_again(client: AsyncClient) -> None:
    names = ["a", "b", "c", "d", "e"]
    all_at_work = asyncio.Barrier(5)
    tried: list[str] = []

    async def work(name: str) -> str:
        if name in tried:
            return "at last"
        tried.append(name)
        await all_at_work.wait()
        if name == "c":
            raise ModelRetry("not so")
        return name

    def tool(name: str) -> Tool[None]:
        return Tool(lambda: work(name), name=name)

    model = TestModel(custom_output_text="done")
    agent = Agent(model, name="five", tools=list(map(tool, names)), capabilities=[LavantCapability(client)])
    await agent.run("go")
    made = await context(client, await newest(client))
    tools = made.span_tree.find({"name_contains": "execute_tool"})
    assert [(node.attributes["gen_ai.tool.name"], node.status) for node in tools] == [
        *((name, "error" if name == "c" else "ok") for name in names),
        ("c", "ok"),
    ]
    assert {node.parent.name for node in tools if node.parent} == {"invoke_agent five"}
    assert max(node.start_timestamp for node in tools[:5]) <= min(node.end_timestamp for node in tools[:5])
    assert (made.metrics["tool_calls"], made.metrics["requests"]) == (6, 3)
    assert tools[2].attributes["error.message"] == "not so"


async def test_five_tools_at_once_and_one_raises(client: AsyncClient) -> None:
    all_at_work = asyncio.Barrier(5)
    async with client.runs.start("five") as run:

        async def work(number: int) -> None:
            async with run.step(f"tool {number}", "tool"), run.tool(f"tool {number}", {"n": number}) as tool:
                await all_at_work.wait()
                tool.result = 1 / (number - 3)

        await asyncio.gather(*(work(number) for number in range(1, 6)), return_exceptions=True)
    made = await context(client, await newest(client))
    assert outline(made) == [
        "invoke_agent five ok",
        "  execute_tool tool 1 ok",
        "  execute_tool tool 2 ok",
        "  execute_tool tool 3 error",
        "  execute_tool tool 4 ok",
        "  execute_tool tool 5 ok",
    ]
    assert span(made, "execute_tool tool 3").attributes["error.type"] == "ZeroDivisionError"


async def test_an_agent_within_a_tool_is_a_span_below_it(client: AsyncClient) -> None:
    expert = Agent(TestModel(custom_output_text="cold"), name="expert", capabilities=[LavantCapability(client)])

    @expert.tool_plain
    def look_up(city: str) -> str:
        return city

    chief = Agent(TestModel(custom_output_text="done"), name="chief", capabilities=[LavantCapability(client)])

    @chief.tool_plain
    async def consult() -> str:
        return (await expert.run("what?")).output

    await chief.run("go")
    made = await context(client, await newest(client))
    assert outline(made) == [
        "invoke_agent chief ok",
        "  chat test ok",
        "  execute_tool consult ok",
        "    invoke_agent expert ok",
        "      chat test ok",
        "      execute_tool look_up ok",
        "      chat test ok",
        "  chat test ok",
    ]
    assert (made.inputs, made.output, made.metrics["requests"]) == ("go", "done", 4)


async def test_a_failed_run_has_its_error(client: AsyncClient) -> None:
    agent = Agent(TestModel(), name="failing", capabilities=[LavantCapability(client)])

    @agent.tool_plain
    def search() -> str:
        raise LookupError("no such city")

    with pytest.raises(LookupError):
        await agent.run("go")
    made = await context(client, await newest(client))
    assert made.attributes["state"] == "failed"
    assert made.attributes["error"] == {
        "message": "no such city", "type": "LookupError", "retryable": False, "details": None,
    }  # fmt: skip
    assert outline(made) == ["invoke_agent failing error", "  chat test ok", "  execute_tool search error"]
    assert span(made, "invoke_agent failing").attributes["error.message"] == "no such city"


async def test_a_cancelled_run_is_no_success(client: AsyncClient) -> None:
    agent = Agent(TestModel(), name="slow", capabilities=[LavantCapability(client)])
    at_work = asyncio.Event()

    @agent.tool_plain
    async def wait() -> None:
        at_work.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(agent.run("go"))
    await at_work.wait()
    await client.runs.cancel((await newest(client)).id, "too slow")
    with pytest.raises(AgentCancelled):
        await working
    made = await context(client, await newest(client))
    assert (made.attributes["state"], made.attributes["error"]["message"]) == ("cancelled", "too slow")
    assert outline(made) == ["invoke_agent slow error", "  chat test ok", "  execute_tool wait error"]


async def test_what_never_ended_lasts_until_the_end(server: Server, client: AsyncClient) -> None:
    await create(server.stubs, "lost")
    started = run_started()
    started.attributes["region"] = "north"
    await append(server.stubs, [started, step_started("s"), run_finished(RUN_STATE_ABANDONED)], run_id="lost")
    made = await context_of(await collected(client, "lost"))
    (step,) = made.span_tree.roots[0].children
    assert (step.status, step.end_timestamp) == ("error", made.span_tree.roots[0].end_timestamp)
    assert made.metadata == {"region": "north"}


async def test_earlier_attempts_do_not_count(server: Server, client: AsyncClient) -> None:
    await create(server.stubs, "tried")
    log = [
        run_started(),
        step_started("s"),
        step_started("inner", parent="s"),
        tool_call_started("wrong"),
        tool_call_finished("wrong"),
        step_started("s", attempt=2),
        step_finished("s"),
        run_finished(),
    ]
    log[3].step_id = log[4].step_id = "inner"
    await append(server.stubs, log, run_id="tried")
    made = await context_of(await collected(client, "tried"))
    assert [len(node.descendants) for node in made.span_tree.roots] == [1]


async def test_steps_without_calls_and_messages_say_what_they_can(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run, run.step("invoke_agent expert", "agent"):
        async with run.step("search", "tool", input={"q": "Oslo"}) as search:
            search.output = ["-3 °C"]
        async with run.step("ask", "model_request") as ask:
            ask.usage = Usage(model="gpt-5")
        async with run.step("guess", "model_request"):
            pass
    made = await context(client, await newest(client))
    assert outline(made) == [
        "invoke_agent agent ok",
        "  invoke_agent expert ok",
        "    execute_tool search ok",
        "    chat gpt-5 ok",
        "    chat guess ok",
    ]
    attributes = span(made, "execute_tool search").attributes
    assert attributes["gen_ai.tool.call.arguments"] == '{"q":"Oslo"}'
    assert attributes["gen_ai.tool.call.result"] == '["-3 °C"]'


async def test_tools_that_a_tool_calls_are_below_it(client: AsyncClient) -> None:
    async with (
        client.runs.start("agent") as run,
        run.step("research", "tool"),
        run.tool("research"),
        run.tool("search"),
    ):
        pass
    assert outline(await context(client, await newest(client))) == [
        "invoke_agent agent ok",
        "  execute_tool research ok",
        "    execute_tool search ok",
    ]


async def test_what_begins_at_one_time_is_in_the_order_of_its_events(server: Server, client: AsyncClient) -> None:
    await create(server.stubs, "quick")
    log = [
        run_started(),
        step_started("s"),
        tool_call_started("first"),
        tool_call_finished("first"),
        step_finished("s"),
        tool_call_started("second"),
        tool_call_finished("second"),
        run_finished(),
    ]
    log[2].step_id = log[3].step_id = "s"
    await append(server.stubs, log, run_id="quick")
    made = await context_of(await collected(client, "quick"))
    ids = [node.attributes.get("gen_ai.tool.call.id") for node in made.span_tree]
    assert ids == [None, None, "first", "second"]


async def test_neither_a_final_answer_nor_a_call_that_waits_for_a_person_is_a_tool_that_ran(
    client: AsyncClient,
) -> None:
    agent = Agent(TestModel(), name="typed", output_type=dict[str, int], capabilities=[LavantCapability(client)])
    await agent.run("go")
    made = await context(client, await newest(client))
    assert made.span_tree.any({"name_equals": "execute_tool final_result"})
    assert made.metrics["tool_calls"] == 0

    asking = Agent(
        TestModel(call_tools=["pay"]),
        name="asking",
        output_type=[str, DeferredToolRequests],
        capabilities=[LavantCapability(client)],
    )

    @asking.tool_plain
    def pay() -> None:
        raise ApprovalRequired

    await asking.run("go")
    made = await context(client, await newest(client))
    assert made.span_tree.any({"name_equals": "execute_tool pay"})
    assert made.metrics["tool_calls"] == 0
