"""What cannot be published, and what becomes of its run."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from lavant.client import (
    AsyncClient,
    AsyncRunProducer,
    Event,
    InvalidField,
    LavantError,
    ProducerError,
    ProducerOptions,
    ProducerOverloaded,
    Role,
    RunState,
)
from lavant.client._wire.json_text import encode
from lavant.client.integrations.pydantic_ai import LavantCapability
from lavant.contract.limits import MAX_VALUE_BYTES
from support.server import ServerProcess

BIG = "x" * (2 << 20)


async def log(client: AsyncClient, run_id: str) -> list[Event]:
    return [event async for event in client.runs.events(run_id, page_size=1_000)]


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("mute")


@pytest.mark.parametrize(
    ("field", "make"),
    [("output", cyclic), ("output", lambda: BIG), ("usage", lambda: "many tokens")],
)
async def test_an_end_that_cannot_be_published_is_a_failure(
    client: AsyncClient, field: str, make: Callable[[], Any]
) -> None:
    async def work() -> None:
        async with client.runs.start("agent", on_error="raise", run_id="r") as run:
            await run.custom("a.b", 1)
            setattr(run, field, make())

    with pytest.raises((ValueError, InvalidField, AttributeError)):
        await work()
    run_now = await client.runs.get("r")
    assert run_now.state is RunState.FAILED
    assert run_now.result is not None
    assert run_now.result.error is not None
    assert [event.type for event in await log(client, "r")] == ["run_started", "custom", "run_finished"]


async def test_the_bodys_own_error_comes_first(client: AsyncClient) -> None:
    async def work() -> None:
        async with client.runs.start("agent", on_error="raise", run_id="r") as run, run.step("plan") as step:
            run.output = step.output = cyclic()
            raise KeyError("mine")

    with pytest.raises(KeyError) as raised:
        await work()
    assert any("could not be finished" in note for note in raised.value.__notes__)
    result = (await client.runs.get("r")).result
    assert result is not None
    assert result.error is not None
    assert result.error.type == "KeyError"


@pytest.mark.parametrize("error", [Mute(), ValueError("\ud83d")])
async def test_an_error_without_valid_text_ends_its_run(client: AsyncClient, error: Exception) -> None:
    with pytest.raises(type(error)):
        async with client.runs.start("agent", on_error="raise", run_id="r"):
            raise error
    assert (await client.runs.get("r")).state is RunState.FAILED


async def test_an_input_that_is_too_large_ends_its_run(client: AsyncClient) -> None:
    with pytest.raises(InvalidField, match="input"):
        async with client.runs.start("agent", on_error="raise", run_id="r", input=BIG):
            pytest.fail("it was entered")
    assert (await client.runs.wait("r")).state is RunState.FAILED
    assert [event.type for event in await log(client, "r")] == ["run_started", "run_finished"]


async def test_back_pressure_that_is_handled_breaks_nothing(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    options = ProducerOptions(queue_bytes=2_000, block_timeout=0.05)
    accepted = ""

    async def overload(run: AsyncRunProducer) -> None:
        while True:
            await run.custom("a.b", "x" * 100)

    async def say_too_much(run: AsyncRunProducer) -> None:
        nonlocal accepted
        while True:
            await run.text("0123456789" * 10)
            accepted += "0123456789" * 10

    async with process_client.runs.start("agent", on_error="raise", options=options) as run:
        await run.flush()
        await server_process.kill()
        with pytest.raises(ProducerOverloaded):
            await overload(run)
        with pytest.raises(ProducerOverloaded):
            await run.text("never said")
        await server_process.start()
        await run.flush()
        await run.text("said")
        accepted += "said"
        await run.flush()
        await server_process.kill()
        with pytest.raises(ProducerOverloaded):
            await say_too_much(run)
        await server_process.start()
        await run.flush()
    events = await log(process_client, run.id)
    types = [event.type for event in events]
    assert types.count("message_started") == types.count("message_finished") == 1
    (finished,) = [event for event in events if event.type == "message_finished"]
    assert [part.text for part in finished.data.parts] == [accepted]


async def test_after_the_block_publishing_is_refused(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        pass
    with pytest.raises(ProducerError, match="has ended; publish"):
        await run.text("late")
    assert await run.flush()


async def test_a_run_that_another_producer_has_started_is_left_alone(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.runs.start("agent", run_id="r") as first:
        await first.custom("a.b", 1)
        await first.flush()
        async with client.runs.start("agent", run_id="r", input={"q": 1}) as second:
            await second.custom("a.b", 2)
        await first.custom("a.b", 3)
    values = [event.proto.custom.value_json for event in await log(client, "r") if event.type == "custom"]
    assert values == ["1", "3"]
    assert (await client.runs.get("r")).state is RunState.SUCCEEDED
    (refused,) = [record.getMessage() for record in caplog.records]
    assert "a run starts once" in refused


async def test_a_closed_client_raises_an_error_of_the_tree(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.aclose()
    with pytest.raises(LavantError, match="client is closed"):
        await client.runs.get("r")
    with pytest.raises(LavantError, match="client is closed"):
        await anext(client.runs.watch())
    with pytest.raises(LavantError, match="client is closed"):
        async with client.runs.start("agent", on_error="raise"):
            pass
    agent = Agent(TestModel(custom_output_text="done"), capabilities=[LavantCapability(client)])
    assert (await agent.run("go")).output == "done"
    assert "the client is closed" in caplog.text


async def test_unpaired_surrogates_are_replaced(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        await run.text("a\ud83d")
        await run.reasoning("\ud83d")
        async with run.tool("search", '"\ud83d"') as tool:
            await tool.output("\ud83d")
        await run.error("\ud83d")
        run.output = {"\ud83d": ["\ud83d"]}
    result = (await client.runs.get(run.id)).result
    assert result is not None
    assert result.output == {"\ufffd": ["\ufffd"]}
    assert await client.runs.stream(run.id).text() == "a\ufffd"
    assert encode("\ud83d\ude00") == '"\U0001f600"'


async def test_text_must_be_text(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        for chunk in (b"bytes", None):
            with pytest.raises(TypeError, match="must be a str"):
                await run.text(chunk)  # type: ignore[arg-type]
        await run.text("fine")


async def test_without_strictness_a_large_value_costs_itself(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.runs.start("agent", on_error="log") as run:
        for value in (1, BIG, 2):
            await run.custom("a.b", value)
    events = [event for event in await log(client, run.id) if event.type == "custom"]
    assert [event.proto.custom.value_json[:16] for event in events] == ["1", '{"truncated":tru', "2"]
    assert events[1].proto.attributes["lavant.changed"] == "value_json is too large"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_without_strictness_an_output_that_contains_itself_is_described(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="log") as run:
        run.output = cyclic()
    ended = await client.runs.get(run.id)
    assert ended.state is RunState.SUCCEEDED
    assert ended.result is not None
    assert ended.result.output == [{"type": "list", "contains": "itself"}]


async def test_a_recorder_cuts_large_values(client: AsyncClient) -> None:
    agent = Agent(TestModel(custom_output_text=BIG), capabilities=[LavantCapability(client, run_id="r")])

    @agent.tool_plain
    def read() -> str:
        return BIG

    assert (await agent.run(BIG)).output == BIG
    run = await client.runs.get("r")
    assert run.state is RunState.SUCCEEDED
    assert run.result is not None
    assert run.result.output == {"truncated": True, "bytes": len(BIG) + 2, "head": ('"' + BIG)[:1_000]}
    assert len(BIG) > MAX_VALUE_BYTES
    (used,) = [used async for used in client.runs.stream("r").tool_calls]
    assert used.result["truncated"]
    assert await client.runs.stream("r").text() == BIG


async def test_long_messages_of_blocks_become_several(client: AsyncClient) -> None:
    async with client.runs.start("agent", on_error="raise") as run:
        async with run.message(role="user") as message:
            for _ in range(30):
                await message.text("0123456789" * 1_000)
                await run.text("0123456789" * 1_000)
        await run.text(BIG)
    events = await log(client, run.id)
    roles = [event.data.role for event in events if event.type == "message_started"]
    finished = [event.data for event in events if event.type == "message_finished"]
    assert [message.role for message in finished] == roles
    assert "".join(part.text for message in finished for part in message.parts) == "0123456789" * 60_000 + BIG
    assert roles[:4] == [Role.USER] * 3 + [Role.ASSISTANT]


async def test_unknown_words_raise_with_the_known_ones(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match=r"queued, running, .*not 'done'"):
        await anext(client.runs.list(states=["done"]))
    with pytest.raises(ValueError, match="agent, evaluation, not 'x'"):
        client.runs.watch(kinds=["x"])
    with pytest.raises(ValueError, match="names must be several"):
        client.runs.watch(names="weather-agent")
    async with client.runs.start("agent", on_error="raise") as run:
        with pytest.raises(ValueError, match="model_request"):
            run.step("a", "x")
        with pytest.raises(ValueError, match="assistant"):
            run.message("x")


async def test_a_secret_with_control_characters_is_not_shown() -> None:
    with pytest.raises(ValueError, match="api_key") as refused:
        AsyncClient(api_key="secret\n")
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="x-tenant"):
        AsyncClient(metadata=[("x-tenant", "a\x00")])


async def test_closing_the_client_ends_a_call_under_way(client: AsyncClient) -> None:
    await client.runs.create("agent", run_id="r")
    waiting = asyncio.create_task(client.runs.wait("r"))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(LavantError, match="client"):
        await waiting
