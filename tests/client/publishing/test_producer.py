"""Publishing, against a real server."""

import asyncio
import re
from collections import Counter

import pytest

from lavant.client import (
    AsyncClient,
    Event,
    ProducerOptions,
    ProducerOverloaded,
    RunCancelled,
    RunSealed,
    RunState,
    Unavailable,
    Usage,
)
from lavant.v1.event_pb2 import CustomEvent
from lavant.v1.event_pb2 import Event as Proto
from support.server import ServerProcess


async def log(client: AsyncClient, run_id: str) -> list[Event]:
    return [event async for event in client.runs.events(run_id, page_size=1_000)]


async def test_every_method_has_its_event(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise", input={"q": 1}, model="m", version="2") as run:
        await run.reasoning("hm")
        await run.text("hello")
        async with run.message(role="user") as message:
            await message.text("what?")
        async with run.tool("search", {"q": 1}) as tool:
            await tool.output("half")
            tool.result = [1]
        await run.progress("rows", 1, 2, iteration=1, usage=Usage(input_tokens=1))
        await run.error("odd")
        await run.error(ValueError("odder"))
        await run.state({"a": 1})
        await run.custom("a.b", 1)
        artifact = await run.artifact("a.txt", b"x")
        await run.artifact("a.txt", b"y", artifact_id=artifact, append=True)
        await run.publish(Proto(custom=CustomEvent(name="raw")))
        run.output, run.usage = {"answer": 42}, Usage(output_tokens=3)
    events = await log(client, run.id)
    assert [event.type for event in events] == [
        *("run_started", "message_started", "reasoning_delta", "text_delta"),
        *("message_finished", "message_started", "text_delta", "message_finished"),
        *("tool_call_started", "tool_output_delta", "tool_call_finished", "progress_reported"),
        *("error_reported", "error_reported", "state_snapshot", "custom"),
        *("artifact_updated", "artifact_updated", "custom", "run_finished"),
    ]
    assert [event.event_id.rpartition(".")[2] for event in events] == [str(n) for n in range(1, 21)]
    result = (await client.runs.get(run.id)).result
    assert result is not None
    assert (result.output, result.usage) == ({"answer": 42}, Usage(output_tokens=3))
    assert run.last_receipt is not None
    assert run.last_receipt.last_sequence == 20


async def test_long_text_becomes_several_messages(client: AsyncClient) -> None:
    chunk = "0123456789" * 1_000
    async with client.runs.start("agent", on_error="raise") as run:
        for _ in range(45):
            await run.text(chunk)
    assert await client.runs.stream(run.id).text() == chunk * 45
    types = [event.type for event in await log(client, run.id)]
    assert types.count("message_started") == types.count("message_finished") == 3


async def test_steps_nest_by_task(client: AsyncClient) -> None:
    both_open = asyncio.Barrier(2)
    async with client.runs.start("agent", on_error="raise") as run:

        async def work(name: str) -> None:
            async with run.step(name) as step:
                await both_open.wait()
                await run.custom("a.b", step.id)
                async with run.step(f"{name}.inner", "tool") as inner:
                    await run.custom("a.b", inner.id)

        await asyncio.gather(work("left"), work("right"))
        await run.custom("a.b", "")
    parents = {}
    for event in await log(client, run.id):
        if event.type == "step_started":
            parents[event.data.name] = event.data.parent_step_id
        elif event.type == "custom":
            assert event.data.value == event.step_id
    assert parents["left"] == parents["right"] == ""
    assert "" != parents["left.inner"] != parents["right.inner"] != ""


async def test_a_step_that_is_tried_again_replaces_its_earlier_attempt(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        async with run.step("look") as first:
            await run.text("wrong")
        async with run.step("look", attempt=2, step_id=first.id) as second:
            await run.text("right")
        async with run.step("look", attempt=2):
            pass
    recording = await client.runs.stream(run.id).collect()
    assert (second.id, recording.text) == (first.id, "right")
    assert [(step.attempt, step.text) for step in recording.steps] == [(2, "right"), (2, "")]


async def test_a_step_that_raises_has_failed(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        with pytest.raises(ValueError, match="no"):
            async with run.step("plan"), run.tool("search"):
                raise ValueError("no")
    finished = [event for event in await log(client, run.id) if event.type in ("tool_call_finished", "step_finished")]
    assert [event.data.error and event.data.error.message for event in finished] == ["no", "no"]
    assert (await client.runs.get(run.id)).state is RunState.SUCCEEDED


async def test_cancelling_reaches_the_producer(client: AsyncClient) -> None:
    async def work() -> None:
        async with client.runs.start("agent", on_error="raise", run_id="r") as run:
            run.raise_if_cancelled()
            await run.flush()
            await client.runs.cancel(run.id, "enough")
            await run.wait_cancelled()
            assert (run.cancelled, run.cancel_reason) == (True, "enough")
            run.raise_if_cancelled()

    with pytest.raises(RunCancelled):
        await work()
    result = (await client.runs.get("r")).result
    assert result is not None
    assert result.state is RunState.CANCELLED
    assert result.error is not None
    assert result.error.message == "enough"


async def test_a_cancelled_task_cancels_its_run(client: AsyncClient) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with client.runs.start("agent", on_error="raise", run_id="r"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await client.runs.get("r")).state is RunState.CANCELLED


async def test_a_refusal_for_good_reaches_the_producer(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise", run_id="r"):
        pass
    late = client.runs.start("agent", on_error="raise", run_id="r")
    with pytest.raises(RunSealed):
        await late.__aenter__()
    with pytest.raises(RunSealed):
        await late.text("too late")
    begun = client.runs.start("agent", on_error="raise", run_id="r").begin()
    with pytest.raises(RunSealed):
        await begun.flush(5)


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    async with process_client.runs.start("agent", on_error="raise") as run:
        for number in range(2_000):
            await run.custom("a.b", number)
            if number == 500:
                await run.flush()
            if number in (700, 1_300):
                await server_process.restart()
            if number % 50 == 0:
                await asyncio.sleep(0)
    events = await log(process_client, run.id)
    assert [event.sequence for event in events] == [*range(1, 2_003)]
    values = [event.data.value for event in events if event.type == "custom"]
    assert values == [*range(2_000)]
    assert max(Counter(event.event_id for event in events).values()) == 1


async def test_a_full_queue_holds_the_producer_back(server_process: ServerProcess, process_client: AsyncClient) -> None:
    options = ProducerOptions(queue_bytes=10_000, block_timeout=0.1, close_timeout=0.1)

    async def work() -> None:
        async with process_client.runs.start("agent", on_error="raise", options=options) as run:
            await run.flush()
            await server_process.kill()
            while True:
                await run.custom("a.b", "x" * 100)

    with pytest.raises(ProducerOverloaded) as overloaded:
        await work()
    assert any("could not be finished" in note for note in overloaded.value.__notes__)


async def test_without_strictness_work_goes_on_unrecorded(caplog: pytest.LogCaptureFixture) -> None:
    options = ProducerOptions(block_timeout=0.1, close_timeout=0.1)
    async with AsyncClient("127.0.0.1:1", timeout=0.3) as client:
        async with client.runs.start("agent", options=options) as run:
            await run.text("nobody hears this")
        with pytest.raises(Unavailable):
            async with client.runs.start("agent", on_error="raise", options=ProducerOptions(block_timeout=0.1)) as run:
                pass
    # One line when the outage is known, one for what is lost when the client is closed.
    begun, lost = [record for record in caplog.records if record.name == "lavant.client"]
    assert "out of reach" in begun.getMessage()
    assert re.search(r"\d events of \d runs are lost", lost.getMessage())
