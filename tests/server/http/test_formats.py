"""Streams in the formats of other front ends: complete, valid, and the same after any cut."""

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from lavant.server.http.formats import FORMATS
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunState
from server.http.front_ends import front_end
from support.any_log import any_log
from support.calls import append, create
from support.events import run_started
from support.server import Server

RUN = "/api/v1/runs/run/stream"
EACH_FORMAT = pytest.mark.parametrize("name", FORMATS)

Group = tuple[str, list[str]]  # an ID, and the data that it completes


def groups(body: bytes) -> list[Group]:
    """Return what a reader that resumes keeps of a stream that may be cut anywhere: all up to the last ID."""
    found: list[Group] = []
    data: list[str] = []
    for block in body.decode(errors="replace").split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        assert set(fields) <= {"data", "id", "retry"}
        data += [fields["data"]] if "data" in fields else []
        if "id" in fields:
            found.append((fields["id"], data))
            data = []
    return found


def data_of(found: list[Group]) -> list[str]:
    return [text for _, data in found for text in data]


async def read(web: httpx.AsyncClient, last_id: str = "", **asked: str) -> list[Group]:
    response = await web.get(RUN, params=asked, headers={"Last-Event-ID": last_id} if last_id else {})
    assert response.status_code in (200, 204)
    return groups(response.content)


async def publish(server: Server, events: list[Event], **settings: Any) -> None:
    await create(server.stubs, **settings)
    await append(server.stubs, events)


@EACH_FORMAT
@pytest.mark.parametrize("deltas", ["all", "merged", "none"])
async def test_any_id_resumes_at_the_very_next_event(
    server: Server, web: httpx.AsyncClient, name: str, deltas: str
) -> None:
    asked = {"format": name, "deltas": deltas}
    for seed in range(3):
        run_id = f"run{seed}"
        path = f"/api/v1/runs/{run_id}/stream"
        events = any_log(seed)
        await create(server.stubs, run_id)
        await append(server.stubs, events[:20], run_id=run_id)
        await append(server.stubs, events[20:], run_id=run_id, first=21)
        whole = groups((await web.get(path, params=asked)).content)
        front_end(name, data_of(whole))
        for number, (last_id, _) in enumerate(whole, 1):
            response = await web.get(path, params=asked, headers={"Last-Event-ID": last_id})
            assert response.status_code == 200 or number >= len(whole) - 2
            assert data_of(groups(response.content)) == data_of(whole[number:]), (seed, number)


@EACH_FORMAT
async def test_stream_cut_at_any_byte_is_whole_after_the_resume(
    server: Server, web: httpx.AsyncClient, name: str
) -> None:
    await publish(server, any_log(5, 30))
    body = (await web.get(RUN, params={"format": name})).content
    whole = data_of(groups(body))
    rests: dict[str, list[str]] = {"": whole}
    for cut in range(0, len(body), 7):
        kept = groups(body[:cut])
        last_id = kept[-1][0] if kept else ""
        if last_id not in rests:
            rests[last_id] = data_of(await read(web, last_id, format=name))
        assert data_of(kept) + rests[last_id] == whole, cut
    assert len(rests) > 20


async def next_blocks(lines: AsyncIterator[str], *, until: str) -> bytes:
    """Read up to the end of a block with a line that starts like this."""
    text, is_there = "", False
    while True:
        line = await anext(lines)
        text += f"{line}\n"
        is_there = is_there or line.startswith(until)
        if not line and is_there:
            return text.encode()


@EACH_FORMAT
async def test_resume_before_each_live_event_misses_nothing(server: Server, web: httpx.AsyncClient, name: str) -> None:
    events = any_log(7, 40, state=RunState.RUN_STATE_SUCCEEDED)
    await create(server.stubs)
    await append(server.stubs, events[:1])
    found: list[Group] = []
    for number in range(1, len(events)):
        headers = {"Last-Event-ID": found[-1][0]} if found else {}
        async with web.stream("GET", RUN, params={"format": name, "consumer": "ui"}, headers=headers) as response:
            lines = response.aiter_lines()
            found += groups(await next_blocks(lines, until=": caught_up"))
            await append(server.stubs, [events[number]], first=number + 1)
            found += groups(await next_blocks(lines, until="id: "))
    assert data_of(found) == data_of(await read(web, format=name))
    assert front_end(name, data_of(found)).end in ("RUN_FINISHED", "finish")


@EACH_FORMAT
async def test_drain_is_an_error_that_a_reader_who_reconnects_can_skip(
    server: Server, web: httpx.AsyncClient, name: str
) -> None:
    await publish(server, [run_started()])
    async with web.stream("GET", RUN, params={"format": name}) as response:
        lines = response.aiter_lines()
        await next_blocks(lines, until=": caught_up")
        server.app.calls.drain()
        rest = [line async for line in lines]
    errors = [line for line in rest if line.startswith("data: {")]
    assert "DRAINING" in errors[0]
    assert all(before == "event: reconnect" for before, line in pairwise(rest) if line.startswith("data: "))


@EACH_FORMAT
async def test_displaced_reader_gets_an_error(server: Server, web: httpx.AsyncClient, name: str) -> None:
    await publish(server, [run_started()])
    asked = {"format": name, "consumer": "ui"}
    async with web.stream("GET", RUN, params=asked) as response:
        lines = response.aiter_lines()
        await next_blocks(lines, until=": caught_up")
        async with web.stream("GET", RUN, params={**asked, "take_over": "true"}) as rival:
            await next_blocks(rival.aiter_lines(), until=": caught_up")
            rest = [line async for line in lines if line]
    assert "STREAM_DISPLACED" in rest[0]
    assert json.loads(rest[0].removeprefix("data: "))["type"] in ("RUN_ERROR", "error")
    assert rest[1:] == ["data: [DONE]"] * (name == "ai-sdk")


async def test_stream_that_waits_has_the_thread_of_the_run(server: Server, web: httpx.AsyncClient) -> None:
    async with web.stream("GET", RUN, params={"format": "ag-ui", "wait_for_run": "true"}) as response:
        lines = response.aiter_lines()
        await next_blocks(lines, until=": opened")
        await publish(server, [run_started()], conversation_id="talk")
        (found,) = data_of(groups(await next_blocks(lines, until="data: ")))
    assert json.loads(found) == {"type": "RUN_STARTED", "threadId": "talk", "runId": "run"}


async def test_responses_have_the_header_of_their_format(server: Server, web: httpx.AsyncClient) -> None:
    await publish(server, any_log(1))
    versions = [
        (await web.request(method, RUN, params={"format": name})).headers.get("x-vercel-ai-ui-message-stream")
        for name in ("lavant", "ag-ui", "ai-sdk")
        for method in ("GET", "HEAD")
    ]
    assert versions == [None, None, None, None, "v1", "v1"]


@EACH_FORMAT
@pytest.mark.parametrize(
    ("asked", "path"), [({"type": "text_delta"}, "type"), ({"start": "now"}, "start"), ({"format": "a2a"}, "format")]
)
async def test_stream_of_a_part_of_the_events_is_refused(
    server: Server, web: httpx.AsyncClient, name: str, asked: dict[str, str], path: str
) -> None:
    await publish(server, any_log(1))
    answer = await web.get(RUN, params={"format": name, **asked})
    assert (answer.status_code, answer.json()["error"]["fields"][0]["path"]) == (400, path)
    part = (await web.get(RUN, params={"type": "text_delta"})).text
    last_id = part.split("\nid: ")[1].split("\n")[0]
    answer = await web.get(RUN, params={"format": name}, headers={"Last-Event-ID": last_id})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "RESUME_TOKEN_INVALID")


async def test_evaluation_has_no_other_format(server: Server, web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/evaluations/run/stream", params={"format": "ag-ui"})
    assert "is not a parameter of this path" in answer.json()["error"]["message"]
