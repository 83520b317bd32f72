"""Streams of runs that are yet to come, and streams that end because nothing comes, as a browser has them."""

import asyncio
import json

import httpx
from playwright.async_api import Page

from server.http.browser import Site, needs_chromium
from server.http.reading import read, read_all
from support.calls import append, create, until
from support.events import a_run_of
from support.server import Server

STREAM = "/api/v1/runs/run/stream"


async def test_a_run_can_be_waited_for(server: Server, web: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20), web.stream("GET", STREAM, params={"wait_for_run": "true"}) as response:
        assert response.status_code == 200
        events = read(response)
        opened = await anext(events)
        assert (opened.name, opened.data) == ("opened", "{}")
        await create(server.stubs)
        await append(server.stubs, a_run_of(4))
        names = [event.name async for event in events if event.name != "caught_up"]
    assert (names[0], names[-1]) == ("run_started", "end")


async def test_a_reader_that_is_cut_off_while_it_waits_reads_from_the_start(
    server: Server, web: httpx.AsyncClient
) -> None:
    async with asyncio.timeout(20), web.stream("GET", STREAM, params={"wait_for_run": "true"}) as response:
        waited = await anext(read(response))
    await create(server.stubs)
    await append(server.stubs, a_run_of(4))
    sent = await read_all(web, STREAM, waited.last_id)
    assert [event.name for event in sent][1] == "run_started"


async def test_without_a_wish_to_wait_a_missing_run_is_an_error(web: httpx.AsyncClient) -> None:
    for asked in ({}, {"wait_for_run": "false"}):
        assert (await web.get(STREAM, params=asked)).status_code == 404


async def test_an_idle_end_is_not_to_be_reopened_but_can_be_read_on_from(
    server: Server, web: httpx.AsyncClient
) -> None:
    await create(server.stubs)
    events = a_run_of(4)
    await append(server.stubs, events[:2])
    async with asyncio.timeout(20), web.stream("GET", STREAM, params={"idle_timeout": "1"}) as response:
        *_, end = [event async for event in read(response)]
    assert json.loads(end.data) == {"reason": "IDLE", "reconnect": False}
    await append(server.stubs, events[2:], first=3)
    automatic = await web.get(STREAM, params={"idle_timeout": "1"}, headers={"last-event-id": end.last_id})
    assert automatic.status_code == 204
    async with asyncio.timeout(20), web.stream("GET", STREAM, params={"last_event_id": end.last_id}) as response:
        names = [event.name async for event in read(response)]
    assert names == ["opened", "message_finished", "run_finished", "caught_up", "end"]


FOLLOWED = """
(address) => new Promise((resolve) => {
    const names = [];
    const source = new EventSource(address);
    for (const name of ["opened", "run_started", "run_finished"]) source.addEventListener(name, () => names.push(name));
    source.addEventListener("end", (end) => names.push(JSON.parse(end.data).reason));
    source.onerror = () => source.readyState === EventSource.CLOSED && resolve(names);
})
"""


async def followed(page: Page, address: str) -> list[str]:
    """What an EventSource without any rule of its own gets until it gives up for good."""
    async with asyncio.timeout(30):
        names: list[str] = await page.evaluate(FOLLOWED, address)
    return names


@needs_chromium
async def test_a_browser_stops_after_an_idle_end(site: Site) -> None:
    page = await site.open("runs")
    async with site.client.runs.start("quiet") as run:
        await run.flush()
        got = await followed(page, f"/api/v1/runs/{run.id}/stream?idle_timeout=1&consumer=ui")
    assert got == ["opened", "run_started", "IDLE"]


@needs_chromium
async def test_a_browser_waits_for_a_run_and_stops_after_it(site: Site) -> None:
    page = await site.open("runs")
    got = asyncio.create_task(followed(page, "/api/v1/runs/later/stream?wait_for_run=true"))
    await until(lambda: any("later/stream" in url for url in site.asked))
    async with site.client.runs.start("late", run_id="later"):
        pass
    assert await got == ["opened", "run_started", "run_finished", "RUN_FINISHED"]
