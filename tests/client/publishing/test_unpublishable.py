"""A value that cannot be published as it is costs no more than itself, unless its author asks for the error."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Literal

import pytest

from lavant.client import AsyncClient, AsyncRunProducer, Client, InvalidField, RunProducer, RunState, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.payloads import MessageDraft
from lavant.client._publishing.requests import fitting_request
from lavant.contract import events
from lavant.contract.limits import MAX_OPEN
from lavant.v1.event_pb2 import CustomEvent, Event
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


async def ended(server: Server) -> tuple[RunState, list[str]]:
    """How the run ended, and the types of its first and last event."""
    async with AsyncClient(server.target) as client:
        state = (await client.runs.get("run")).state
    log = await recorded(server.stubs)
    return state, [str(event.WhichOneof("payload")) for event in (log[0], log[-1])]


FAILED = (RunState.FAILED, ["run_started", "run_finished"])
SUCCEEDED = (RunState.SUCCEEDED, ["run_started", "run_finished"])
# Nothing is lost of these: an empty chunk says nothing, and the id is kept beside the one that is allowed.
HARMLESS = {"no text", "a tool's id"}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("flushes", [True, False])
async def test_work_goes_on_and_the_run_ends(
    server: Server, client: AsyncClient, caplog: pytest.LogCaptureFixture, name: str, flushes: bool
) -> None:
    async with client.runs.start("agent", run_id="run") as run:
        if flushes:
            await run.flush()
        await ACTS[name](run)
        await run.text("more")
    assert await ended(server) == SUCCEEDED
    said = "".join(event.text_delta.text for event in await recorded(server.stubs) if event.HasField("text_delta"))
    assert said.endswith("more")
    assert [record.levelname for record in caplog.records] == ([] if name in HARMLESS else ["WARNING"])


@pytest.mark.parametrize("act", [act for name, act in ACTS.items() if name != "a tool's id"])
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


async def test_a_foreign_id_is_mapped_and_kept(server: Server, client: AsyncClient) -> None:
    foreign = "call_1\n" + "A" * 941
    async with client.runs.start("agent", run_id="run", on_error="raise") as run:
        for _ in range(2):
            async with run.tool("search", tool_call_id=foreign) as tool:
                tool.result = 1
    log = await recorded(server.stubs)
    calls = [event.tool_call_started.call for event in log if event.HasField("tool_call_started")]
    ended = [event.tool_call_finished.tool_call_id for event in log if event.HasField("tool_call_finished")]
    assert [call.original_id for call in calls] == [foreign] * 2
    assert [call.tool_call_id for call in calls] == ended
    assert len(set(ended)) == 1


async def test_two_open_calls_of_one_id_get_different_ids(server: Server, client: AsyncClient) -> None:
    async with (
        client.runs.start("agent", run_id="run") as run,
        run.tool("outer", tool_call_id="c") as outer,
        run.tool("inner", tool_call_id="c") as inner,
    ):
        inner.result, outer.result = "inner", "outer"
    log = await recorded(server.stubs)
    started = [event.tool_call_started.call for event in log if event.HasField("tool_call_started")]
    finished = [event.tool_call_finished for event in log if event.HasField("tool_call_finished")]
    assert [(call.tool_name, call.original_id) for call in started] == [("outer", ""), ("inner", "c")]
    assert {end.tool_call_id: end.result_json for end in finished} == {
        started[0].tool_call_id: '"outer"',
        started[1].tool_call_id: '"inner"',
    }


@pytest.mark.parametrize("on_error", ["log", "raise"])
async def test_long_output_of_a_tool_arrives_whole(
    server: Server, client: AsyncClient, on_error: Literal["log", "raise"]
) -> None:
    said = "0123456789" * 60_000
    async with client.runs.start("agent", run_id="run", on_error=on_error) as run, run.tool("shell") as tool:
        await tool.output(said)
    log = await recorded(server.stubs)
    assert "".join(event.tool_output_delta.text for event in log if event.HasField("tool_output_delta")) == said
    assert not [event for event in log if event.attributes]


class Lazy:
    """Loads when it is asked for its class, as proxies do."""

    def __init__(self) -> None:
        self.loaded = 0

    @property
    def __class__(self) -> type:
        self.loaded += 1
        raise RuntimeError("loaded")

    @__class__.setter
    def __class__(self, _: object) -> None: ...


@pytest.mark.parametrize(
    "make",
    [
        _payloads.error_text,
        lambda value: _payloads.run_started(value, value, value),
        lambda value: _payloads.custom(value, value),
        lambda value: _payloads.progress(value, value, value, value, value),
        lambda value: _payloads.tool_call(value, value, value),
        lambda value: _payloads.tool_output_delta(value, value),
        lambda value: next(_payloads.artifact(value, value, value, value, None, False)),
        lambda value: MessageDraft("m", model=value).text(value),
        lambda value: fitting_request(value, value, "agent", {"k": value}, value, value, None),
    ],
    ids=map(str, range(9)),
)
def test_a_lazy_value_is_not_loaded(make: Callable[[Any], object]) -> None:
    lazy = Lazy()
    make(lazy)
    assert lazy.loaded == 0


async def test_more_open_steps_than_allowed_cost_only_these(server: Server, client: AsyncClient) -> None:
    async with client.runs.start("agent", run_id="run") as run, AsyncExitStack() as stack:
        for number in range(MAX_OPEN + 3):
            await stack.enter_async_context(run.step(f"step {number}"))
        await run.custom("a.b", "innermost")
    log = await recorded(server.stubs)
    assert await ended(server) == SUCCEEDED
    assert sum(event.HasField("step_started") for event in log) == MAX_OPEN
    assert sum(event.HasField("step_finished") for event in log) == MAX_OPEN
    markers = [event.error_reported.error for event in log if event.HasField("error_reported")]
    assert [(marker.type, f"{MAX_OPEN} steps" in marker.message) for marker in markers] == [
        ("lavant.InvalidField", True)
    ] * 3
    assert [event.step_id for event in log if event.HasField("custom")] == [""]


async def test_what_only_the_server_refuses_is_replaced_by_a_marker(
    process_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "apply", lambda content, events: [])  # a client that knows fewer rules than the server
    async with process_client.runs.start("agent") as run:
        await run.custom("a.b", 1)
        await run.publish(Event(custom=CustomEvent(name="x" * 200)))
        await run.custom("a.b", 2)
    log = [event async for event in process_client.runs.events(run.id)]
    assert [event.type for event in log] == ["run_started", "custom", "error_reported", "custom", "run_finished"]
    assert "custom.name" in log[2].proto.error_reported.error.message
    assert log[-1].proto.run_finished.state == RUN_STATE_SUCCEEDED


REQUESTS: dict[str, dict[str, Any]] = {
    "a label that is a number": {"labels": {"k": 5}},
    "a label without a value": {"labels": {"k": None}},
    "a label's name that is a number": {"labels": {5: "v"}},
    "labels that are no mapping": {"labels": ["k"]},
    "100 labels": {"labels": {f"k{number}": "v" for number in range(100)}},
    "a surrogate": {"labels": {"k": "\udcff"}, "name": "\udcff", "version": "\udcff", "model": "\udcff"},
    "no name": {"name": ""},
    "a name that is none": {"name": None},
    "a long name": {"name": "n" * 1_000},
    "a name of two lines": {"name": "a\nb"},
    "a long conversation": {"conversation_id": "t" * 300},
    "an unknown kind": {"kind": "bot"},
    "a timeout that is none": {"producer_timeout": "soon"},
    "a model that is none": {"model": 5},
    "a parent that is none": {"parent_run_id": "a/b"},
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_run_is_created_of_whatever_is_given(
    server: Server, client: AsyncClient, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    given: dict[str, Any] = {"name": "agent", "run_id": "run", **REQUESTS[name]}
    async with client.runs.start(**given) as run:
        await run.text("more")
    assert await ended(server) == SUCCEEDED
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_an_id_that_no_run_may_have_is_mapped(server: Server, client: AsyncClient) -> None:
    async with client.runs.start("agent", run_id="a b/c\n") as run:
        await run.text("more")
    assert (await client.runs.get(run.id)).state is RunState.SUCCEEDED
    assert run.id.startswith("a_b_c_~")


async def test_long_conversations_stay_apart(server: Server, client: AsyncClient) -> None:
    for end in ("a", "b"):
        async with client.runs.start("agent", run_id=end, conversation_id="t" * 300 + end):
            pass
    assert (await client.runs.get("a")).conversation_id != (await client.runs.get("b")).conversation_id


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
    assert await ended(server) == SUCCEEDED
