"""Runs as server-sent events."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import Parse

from lavant.client import AsyncClient
from lavant.v1.event_pb2 import Event
from server.http.reading import Sent, read, read_all
from support.calls import create, until
from support.server import Server, serving

CONTROL = {"opened", "caught_up", "end"}
HOSTILE = 'a\r\nb\nevent: end\ndata: {}\n\n\u2028\u2029\x00\U0001f600 é \\ " <script>'


async def a_run(client: AsyncClient) -> str:
    async with client.runs.start("agent", input=HOSTILE) as run:
        for word in ("It ", "is ", HOSTILE):
            await run.text(word)
        async with run.step("look"), run.tool("search", {"q": 2**63}) as tool:
            tool.result = ["cold"]
        await run.custom("big", "x" * 700_000)
    return run.id


def of_run(events: list[Sent]) -> list[Event]:
    return [Parse(event.data, Event()) for event in events if event.name not in CONTROL]


async def test_the_events_are_those_of_the_log(client: AsyncClient, web: httpx.AsyncClient) -> None:
    run_id = await a_run(client)
    sent = await read_all(web, f"/api/v1/runs/{run_id}/stream")
    log = [event.proto async for event in client.runs.events(run_id)]
    assert of_run(sent) == log
    assert [event.name for event in sent] == [
        "opened", *(str(event.WhichOneof("payload")) for event in log), "caught_up", "end",
    ]  # fmt: skip
    assert json.loads(sent[0].data)["run"]["run_id"] == run_id
    assert json.loads(sent[-1].data) == {"reason": "RUN_FINISHED", "reconnect": False}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"type": ["step_started", "run_finished"]}, {"step_started", "run_finished"}),
        ({"deltas": "none", "type": ["text_delta", "step_started"]}, {"step_started"}),
    ],
)
async def test_what_is_shown_may_be_chosen(
    client: AsyncClient, web: httpx.AsyncClient, asked: dict[str, Any], names: set[str]
) -> None:
    sent = await read_all(web, f"/api/v1/runs/{await a_run(client)}/stream", **asked)
    assert {event.name for event in sent} - CONTROL == names


async def test_merged_deltas_are_one_event(client: AsyncClient, web: httpx.AsyncClient) -> None:
    sent = await read_all(web, f"/api/v1/runs/{await a_run(client)}/stream", deltas="merged")
    (delta,) = [event for event in of_run(sent) if event.HasField("text_delta")]
    assert delta.text_delta.text == "It is " + HOSTILE


async def test_a_stream_is_live_and_moves_on_in_silence(client: AsyncClient, web: httpx.AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.flush()
        async with web.stream("GET", f"/api/v1/runs/{run.id}/stream?heartbeat_interval=1") as response:
            sent = read(response)
            while (await anext(sent)).name != "caught_up":
                pass
            await run.text("now")
            assert [(await anext(sent)).name for _ in range(2)] == ["message_started", "text_delta"]
        async with web.stream("GET", f"/api/v1/runs/{run.id}/stream?heartbeat_interval=1&start=now") as response:
            lines = response.aiter_lines()
            while await anext(lines) != ": heartbeat":
                pass
            assert (await anext(lines)).startswith("id: ")


async def test_whoever_leaves_gives_the_place_back(server: Server, client: AsyncClient, web: httpx.AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.flush()
        async with web.stream("GET", f"/api/v1/runs/{run.id}/stream?consumer=ui") as response:
            await anext(read(response))
            assert len(server.app.calls) == 2  # the producer's, and this
        await until(lambda: len(server.app.calls) == 1)
        async with client.runs.stream(run.id, consumer="ui") as stream:
            assert (await anext(stream)).type == "run_started"


async def test_a_reader_that_does_not_read_harms_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, http="127.0.0.1:0", write_timeout=0.5) as server, AsyncClient(server.target) as client:
        async with client.runs.start("agent", on_error="raise") as run:
            await run.flush()
            host, port = server.app.http_address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 12)
            writer.write(f"GET /api/v1/runs/{run.id}/stream?consumer=ui HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"event: opened")
            for _ in range(50):
                await run.custom("big", "x" * (1 << 19))
            await run.flush(30)
            await until(lambda: len(server.app.calls) == 1)
            async with client.runs.stream(run.id, consumer="ui") as stream:
                assert (await anext(stream)).type == "run_started"
        writer.close()


async def test_a_drain_says_so(server: Server, web: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    await create(server.stubs)
    assert (await admin.get("/readyz")).status_code == 200
    async with web.stream("GET", "/api/v1/runs/run/stream") as response:
        events = read(response)
        assert (await anext(events)).name == "opened"
        server.app.calls.drain()
        ends = [json.loads(event.data) async for event in events if event.name == "end"]
    assert ends == [{"reason": "DRAINING", "reconnect": True}]
    assert (await admin.get("/readyz")).status_code == 503
    assert (await admin.get("/healthz")).status_code == 200
    for path in ("/api/v1/runs/run/stream", "/api/v1/watch"):
        refused = await web.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await web.get("/api/v1/runs/run")).status_code == 200
