"""One stream per run and consumer, over HTTP and gRPC alike."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from server.http.reading import Sent, read
from support.calls import append, create, until
from support.events import run_started
from support.server import Server
from support.streams import opened, refused

STREAM = "/api/v1/{kind}/run/stream"
LIMIT = 20.0
RUNS, EVALUATIONS = STREAM.format(kind="runs"), STREAM.format(kind="evaluations")


class Tab:
    """A browser's EventSource: it reconnects with its last id, until it is refused."""

    def __init__(self, web: httpx.AsyncClient, path: str = RUNS, **asked: Any) -> None:
        self._web = web
        self._path = path
        self._asked = {"consumer": "ui", **asked}
        self.last_id = ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[Sent]]:
        """Hold the place."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        async with (
            asyncio.timeout(LIMIT),
            self._web.stream("GET", self._path, params=self._asked, headers=headers) as response,
        ):
            assert response.status_code == 200
            events = read(response)
            first = await anext(events)
            assert first.name == "opened"
            self.last_id = first.last_id
            yield events

    async def refused(self) -> httpx.Response:
        """Ask for the place, and be refused."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        answer = await self._web.get(self._path, params=self._asked, headers=headers)
        assert answer.status_code == 409
        return answer


async def displaced(events: AsyncIterator[Sent]) -> None:
    ends = [json.loads(event.data) async for event in events if event.name == "end"]
    assert [(end["reason"], end["reconnect"]) for end in ends] == [("STREAM_DISPLACED", False)]


@pytest.fixture(autouse=True)
async def _run(server: Server) -> None:
    await create(server.stubs, kind=2)
    await append(server.stubs, [run_started()])


@pytest.mark.parametrize("path", [RUNS, EVALUATIONS])
async def test_a_rival_learns_when_to_try_again(server: Server, web: httpx.AsyncClient, path: str) -> None:
    async with Tab(web).opened():
        answer = await Tab(web, path).refused()
        error = answer.json()["error"]
        assert error["reason"] == "CONSUMER_BUSY"
        assert 0 < error["retry_after"] <= int(answer.headers["retry-after"]) <= 15
        assert (await refused(server.stubs)).reason == "CONSUMER_BUSY"
        async with Tab(web, consumer="other").opened(), Tab(web, consumer="").opened(), Tab(web, consumer="").opened():
            pass


async def test_a_stream_over_grpc_holds_the_place_against_http(server: Server, web: httpx.AsyncClient) -> None:
    await opened(server.stubs)
    assert (await Tab(web).refused()).json()["error"]["reason"] == "CONSUMER_BUSY"
    async with Tab(web, take_over="true").opened():
        pass


async def test_a_reconnect_takes_over_its_own_stream_at_once(web: httpx.AsyncClient) -> None:
    tab = Tab(web)
    async with tab.opened() as dead, tab.opened() as second, tab.opened():
        await displaced(dead)
        await displaced(second)


async def test_a_session_may_be_named(web: httpx.AsyncClient) -> None:
    async with Tab(web, session="mine").opened() as dead, Tab(web, session="mine").opened():
        await displaced(dead)
        await Tab(web, session="yours").refused()


async def test_the_session_of_the_id_counts_more_than_that_of_the_url(server: Server, web: httpx.AsyncClient) -> None:
    first, second = Tab(web, session="mine"), Tab(web, session="mine")
    async with first.opened():
        pass
    await until(lambda: len(server.app.calls) == 0)
    second.last_id = first.last_id.partition("~")[0] + "~yours"
    async with second.opened():
        await Tab(web, session="mine").refused()


@pytest.mark.parametrize("path", [RUNS, EVALUATIONS])
async def test_two_tabs_do_not_take_the_place_from_each_other_for_ever(
    server: Server, web: httpx.AsyncClient, path: str
) -> None:
    one, other = Tab(web, path, take_over="true"), Tab(web, path, take_over="true")
    async with one.opened() as events, other.opened() as rest:
        await displaced(events)
        await one.refused()
        async with other.opened():
            await displaced(rest)
            await one.refused()
    await until(lambda: len(server.app.calls) == 0)
    async with one.opened():
        await other.refused()


@pytest.mark.parametrize("take_over", ["1", "yes", "TRUE", "true&take_over=true"])
async def test_to_take_over_must_be_said_clearly(web: httpx.AsyncClient, take_over: str) -> None:
    answer = await web.get(f"{RUNS}?take_over={take_over}")
    assert (answer.status_code, answer.json()["error"]["fields"][0]["path"]) == (400, "take_over")
