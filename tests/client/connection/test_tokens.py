"""Tokens that are obtained as needed: before the first call, before they expire, and after a refusal."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from client.connection.test_security import token
from lavant.client import AsyncClient, Client, Unauthenticated, Unavailable
from lavant.server.auth.principal import unauthenticated
from lavant.server.rpc import admission
from support.server import Server, serving


class Gate:
    """The tokens that a server accepts; all others are refused before the call is read."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.seen: list[str] = []

    def admits(self, metadata: Any) -> bool:
        """Return whether a call has an accepted token, and note the token."""
        text = str(dict(metadata).get("authorization", "")).removeprefix("Bearer ")
        self.seen.append(text)
        return text in self.accepted


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before all servers of the test."""
    gate, intercept = Gate(), admission.CallAdmission.intercept_service

    async def intercepted(self: Any, continuation: Any, details: Any) -> Any:
        if gate.admits(details.invocation_metadata):
            return await intercept(self, continuation, details)
        return admission._refusal(partial(self._refuse, unauthenticated("the token has expired"), details.method))

    monkeypatch.setattr(admission.CallAdmission, "intercept_service", intercepted)
    return gate


@pytest.fixture
async def server(tmp_path: Path, gate: Gate) -> AsyncIterator[Server]:
    """A server behind the gate, whose streams end after a second to be opened again."""
    async with serving(tmp_path, max_stream_age=1) as running_server:
        yield running_server


def source(*texts: str) -> tuple[Callable[[], str], list[str]]:
    """A function that returns one token after the other, then the last one, and a list of what it returned."""
    given: list[str] = []

    def obtain() -> str:
        given.append(texts[min(len(given), len(texts) - 1)])
        return given[-1]

    return obtain, given


async def test_a_token_is_obtained_once_for_many_calls(server: Server, gate: Gate) -> None:
    gate.accepted = {"good"}
    obtain, given = source("good")

    async def slowly() -> str:
        await asyncio.sleep(0)
        return obtain()

    async with AsyncClient(server.target, token=slowly) as client:
        runs = [client.runs.create(f"agent-{number}") for number in range(20)]
        await asyncio.gather(*runs)
    assert given == ["good"]
    assert set(gate.seen) == {"good"}


async def test_a_refused_token_is_replaced_once(server: Server, gate: Gate) -> None:
    gate.accepted = {"second"}
    obtain, given = source("first", "second")
    async with AsyncClient(server.target, token=obtain) as client:
        assert [run async for run in client.runs.list()] == []
        gate.accepted = {"third"}
        with pytest.raises(Unauthenticated, match="the token has expired"):
            await client.runs.create("agent")
    assert given == ["first", "second", "second"]


async def test_calls_at_the_same_time_share_a_replacement(server: Server, gate: Gate) -> None:
    gate.accepted = {"first"}
    obtain, given = source("first", "second")
    async with AsyncClient(server.target, token=obtain) as client:
        await client.runs.create("agent")
        gate.accepted = {"second"}
        await asyncio.gather(*(client.runs.create("agent") for _ in range(20)))
    assert given == ["first", "second"]


async def test_a_fixed_key_is_never_replaced(server: Server, gate: Gate) -> None:
    async with AsyncClient(server.target, api_key="first") as client:
        with pytest.raises(Unauthenticated):
            await client.runs.create("agent")
    assert gate.seen == ["first"]


async def test_streams_and_publishers_continue_with_another_token(server: Server, gate: Gate) -> None:
    gate.accepted = {"first"}
    obtain, given = source("first", "second")
    async with AsyncClient(server.target, token=obtain) as client:
        async with client.runs.start("agent", on_error="raise") as run:
            stream = client.runs.stream(run.id, consumer="ui")
            await run.text("It is ")
            assert (await anext(stream)).type == "run_started"
            gate.accepted = {"second"}
            seen = len(gate.seen)
            # The publisher's call ends with its channel's connection; the stream by age.
            client._connection.replace_channels()
            while "second" not in gate.seen[seen:]:
                await run.text("very ")
                await client.runs.get(run.id)
            await run.text("cold.")
        text = await stream.text()
    assert text.startswith("It is ")
    assert text.endswith("cold.")
    assert given == ["first", "second"]


def test_the_blocking_client_replaces_tokens(tmp_path: Path, gate: Gate) -> None:
    gate.accepted = {"second"}
    obtain, given = source("first", "second")

    def work(target: str) -> str:
        with Client(target, token=obtain) as client:
            with client.runs.start("agent", on_error="raise") as run:
                run.text("It is cold.")
            return client.runs.stream(run.id).text()

    async def serve() -> str:
        async with serving(tmp_path) as server:
            return await asyncio.to_thread(work, server.target)

    assert asyncio.run(serve()) == "It is cold."
    assert given == ["first", "second"]


async def test_a_jwt_is_replaced_before_it_expires(server: Server, gate: Gate) -> None:
    fresh = token({"exp": time.time() + 3600})
    short = token({"exp": time.time() + 0.2})  # replaced after 0.16 s at most
    gate.accepted = {fresh, short}
    obtain, given = source(short, fresh)
    async with AsyncClient(server.target, token=obtain) as client:
        while fresh not in given:
            assert [run async for run in client.runs.list()] == []
    assert given == [short, fresh]


async def test_a_source_that_fails_is_tried_again_and_its_text_is_not_shown(server: Server, gate: Gate) -> None:
    gate.accepted = {"good"}
    attempts: list[int] = []

    def obtain() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("secret")
        return "good"

    async with AsyncClient(server.target, token=obtain) as client:
        await client.runs.create("agent")
        assert len(attempts) == 3
    attempts.clear()
    async with AsyncClient(server.target, token=lambda: 1 // 0, timeout=0.3) as client:  # type: ignore[arg-type,return-value]
        with pytest.raises(Unavailable, match=r"token\(\) raised ZeroDivisionError"):
            await client.runs.create("agent")


@pytest.mark.parametrize("bad", [None, "", "two words", b"bytes"])
async def test_what_is_no_token_is_refused(server: Server, gate: Gate, bad: Any) -> None:
    async with AsyncClient(server.target, token=lambda: bad) as client:
        with pytest.raises((TypeError, ValueError), match=r"what token\(\) returns must be"):
            await client.runs.create("agent")


def test_the_blocking_client_refuses_an_asynchronous_source() -> None:
    async def obtain() -> str:
        return "good"

    with Client("127.0.0.1:9", token=obtain) as client, pytest.raises(TypeError, match="must be text, not coroutine"):  # type: ignore[arg-type]
        client.runs.create("agent")
