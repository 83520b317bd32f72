"""Streams passed on as server-sent events, by a web application on a real server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lavant.client import AsyncClient, Client, ConsumerBusy, ErrorInfo, sse
from lavant.client.evaluations import ErrorEvent, Evaluation, StatusEvent
from lavant.client.events import wrap
from lavant.client.states import RunState
from lavant.v1.event_pb2 import Event as Proto
from lavant.v1.event_pb2 import TextDelta
from support.server import free_address, serving
from support.web import Frame, frames_of, serving_web

RUN = "r"
CONTROL = {"opened", "caught_up", "end"}


def application(client: AsyncClient, **settings: Any) -> Starlette:
    """An application with streams of runs and of evaluations, behind a middleware of cancel scopes."""

    async def run(request: Request) -> Response:
        wanted: Any = dict(request.query_params)
        wanted.pop("last_event_id", None)
        wanted["wait_for_run"] = "wait_for_run" in wanted
        return await sse.response(client.runs.stream(request.path_params["id"], **wanted), request, **settings)

    async def evaluation(request: Request) -> Response:
        return await sse.response(client.evaluations.stream(request.path_params["id"]), request, **settings)

    async def passing(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    routes = [Route("/runs/{id}", run), Route("/evaluations/{id}", evaluation)]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)])


@pytest.fixture
async def web(client: AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_web(application(client)) as opened:
        yield opened


@pytest.fixture
async def ended(client: AsyncClient) -> AsyncClient:
    async with client.runs.start("agent", run_id=RUN) as run:
        for number in range(10):
            await run.text(f"{number}\u2028\r\n")
        run.output = {"answer": "cold"}
    return client


async def read(web: httpx.AsyncClient, path: str, last_id: str = "") -> list[Frame]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with web.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return [frame async for frame in frames_of(response)]


def sequences(frames: list[Frame]) -> list[int]:
    return [int(json.loads(frame.data)["sequence"]) for frame in frames if frame.name not in CONTROL]


def test_a_frame_cannot_be_broken_by_what_is_in_an_event() -> None:
    hostile = "a\r\nevent: end\n\ndata: x\u2028\u2029\x85"
    frame = sse.encode(wrap(Proto(sequence=3, text_delta=TextDelta(text=hostile))))
    assert frame.isascii()
    assert frame.count("\n") == 3
    assert "\r" not in frame
    name, data, empty, rest = frame.split("\n")
    assert (name, empty, rest) == ("event: text_delta", "", "")
    assert json.loads(data.removeprefix("data: "))["text_delta"]["text"] == hostile
    with pytest.raises(ValueError, match="one line"):
        sse.encode(wrap(Proto()), id="a\nb")
    assert sse.encode(wrap(Proto()), id="t~1").endswith("\nid: t~1\n\n")


def test_an_evaluations_event_is_a_frame_without_what_is_not_known() -> None:
    assert sse.encode(StatusEvent(status="queued", state=RunState.QUEUED), id="t") == (
        'event: status\ndata: {"status": "queued", "state": "queued"}\nid: t\n\n'
    )
    failed = Evaluation(id="e", state=RunState.FAILED, rows_failed=1)
    frame = sse.encode(ErrorEvent(error=ErrorInfo(message="no"), result=failed))
    told = json.loads(frame.splitlines()[1].removeprefix("data: "))
    assert (told["error"]["message"], told["result"]["state"], told["result"]["rows_failed"]) == ("no", "failed", 1)


async def test_frames_are_those_of_the_servers_own_stream(ended: AsyncClient, tmp_path_factory: Any) -> None:
    serving_http = serving(tmp_path_factory.mktemp("http"), http="127.0.0.1:0")
    async with serving_http as server, AsyncClient(server.target) as client:
        async with client.runs.start("agent", run_id=RUN) as run, run.step("plan"), run.tool("t", {"a": 1}) as tool:
            tool.result = "\u2028"
        async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as own:
            theirs = await read(own, f"/api/v1/runs/{RUN}/stream")
        async with serving_web(application(client)) as web:
            ours = await read(web, f"/runs/{RUN}")
    assert [(frame.name, frame.data) for frame in ours] == [
        (frame.name, frame.data) for frame in theirs if frame.name != "caught_up"
    ]


async def test_a_stream_resumes_after_every_single_event(ended: AsyncClient, web: httpx.AsyncClient) -> None:
    frames = await read(web, f"/runs/{RUN}")
    assert [frame.name for frame in frames][:2] == ["opened", "run_started"]
    assert json.loads(frames[-1].data) == {"reason": "RUN_FINISHED", "reconnect": False}
    total = sequences(frames)
    assert total == [*range(1, len(total) + 1)]
    for frame in frames[:-2]:
        rest = sequences(await read(web, f"/runs/{RUN}", frame.id))
        seen = sequences([frame]) if frame.name not in CONTROL else [0]
        assert rest == [*range(seen[0] + 1, len(total) + 1)]
    # The id is a resume token too.
    stream = ended.runs.stream(RUN, resume_token=frames[5].id)
    assert (await anext(stream)).sequence == sequences([frames[5]])[0] + 1


async def test_whoever_has_read_all_gets_204(ended: AsyncClient, web: httpx.AsyncClient) -> None:
    frames = await read(web, f"/runs/{RUN}")
    for last in frames[-2:]:
        assert (await web.get(f"/runs/{RUN}", headers={"Last-Event-ID": last.id})).status_code == 204
        assert (await web.get(f"/runs/{RUN}", params={"last_event_id": last.id})).status_code == 204


async def test_headers_are_those_of_a_stream(ended: AsyncClient, web: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        async with web.stream(method, f"/runs/{RUN}") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["x-accel-buffering"] == "no"
            assert "content-length" not in response.headers


async def test_what_the_server_refuses_is_a_status(client: AsyncClient, web: httpx.AsyncClient) -> None:
    missing = await web.get("/runs/nope")
    assert (missing.status_code, missing.json()["error"]["reason"]) == (404, "RUN_NOT_FOUND")
    assert (await web.get("/evaluations/nope")).status_code == 404
    async with client.runs.start("agent", run_id=RUN) as run:
        await run.flush()
        for bad in ("damaged", "a~b", "~", "x" * 5_000):
            refused = await web.get(f"/runs/{RUN}", headers={"Last-Event-ID": bad})
            assert (refused.status_code, refused.json()["error"]["reason"]) == (400, "RESUME_TOKEN_INVALID")
        invalid = await web.get(f"/runs/{RUN}", params={"consumer": "x" * 1_000})
        assert (invalid.status_code, invalid.json()["error"]["reason"]) == (400, "INVALID_FIELD")
        async with client.runs.stream(RUN, consumer="tab") as holder:
            await anext(holder)
            busy = await web.get(f"/runs/{RUN}?consumer=tab")
            assert (busy.status_code, busy.json()["error"]["reason"]) == (409, "CONSUMER_BUSY")
            assert 1 <= int(busy.headers["retry-after"]) <= 15
            assert busy.headers["cache-control"] == "no-store"


async def test_a_server_that_is_away_is_503_at_once() -> None:
    async with AsyncClient(free_address()) as nowhere, serving_web(application(nowhere, open_timeout=0.2)) as web:
        away = await web.get(f"/runs/{RUN}")
    assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in away.text


async def test_a_browser_that_left_frees_its_place(client: AsyncClient, web: httpx.AsyncClient) -> None:
    async with client.runs.start("agent", run_id=RUN) as run, AsyncClient(client.target) as other:
        await run.text("a")
        async with web.stream("GET", f"/runs/{RUN}?consumer=tab") as response:
            frames = frames_of(response)
            assert [(await anext(frames)).name for _ in range(4)][-1] == "text_delta"
            with pytest.raises(ConsumerBusy):
                await anext(other.runs.stream(RUN, consumer="tab"))
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await anext(other.runs.stream(RUN, consumer="tab"))).sequence == 1
                    break
                except ConsumerBusy:
                    await asyncio.sleep(0.02)
        assert not (await client.runs.get(RUN)).has_ended


async def test_a_reader_takes_its_own_place_over(client: AsyncClient, web: httpx.AsyncClient) -> None:
    """Also from a connection that nobody has seen the end of, and through another process of the application."""
    async with client.runs.start("agent", run_id=RUN) as run:
        await run.text("a")
        async with web.stream("GET", f"/runs/{RUN}?consumer=tab") as response:
            first = frames_of(response)
            seen = [await anext(first) for _ in range(4)]
            async with AsyncClient(client.target) as other, serving_web(application(other)) as web_2:
                again = {"Last-Event-ID": seen[-1].id}
                async with web_2.stream("GET", f"/runs/{RUN}?consumer=tab", headers=again) as response_2:
                    assert response_2.status_code == 200
                    second = frames_of(response_2)
                    assert (await anext(second)).name == "opened"
                    await run.text("b")
                    following = await anext(second)
                    assert sequences([following]) == [sequences(seen[-1:])[0] + 1]
                    displaced = [frame async for frame in first][-1]
    assert json.loads(displaced.data)["reason"] == "STREAM_DISPLACED"
    assert json.loads(displaced.data)["reconnect"] is False
    assert (await web.get(f"/runs/{RUN}", headers={"Last-Event-ID": displaced.id})).status_code == 204


async def test_silence_is_filled_with_comments(client: AsyncClient) -> None:
    async with client.runs.start("agent", run_id=RUN) as run:
        await run.flush()
        serving_app = serving_web(application(client, heartbeat_interval=0.02))
        async with serving_app as web, web.stream("GET", f"/runs/{RUN}") as response:
            lines = response.aiter_lines()
            while await anext(lines) != ": heartbeat":
                pass
            await run.text("a")
            while await anext(lines) != "event: text_delta":
                pass


async def test_an_idle_stream_ends_and_is_not_opened_again(client: AsyncClient, web: httpx.AsyncClient) -> None:
    async def idle(request: Request) -> Response:
        return await sse.response(client.runs.stream(RUN, idle_timeout=0.1), request)

    async with client.runs.start("agent", run_id=RUN) as run:
        await run.flush()
        async with serving_web(Starlette(routes=[Route("/idle", idle)])) as web:
            frames = await read(web, "/idle")
            assert json.loads(frames[-1].data) == {"reason": "IDLE", "reconnect": False}
            assert (await web.get("/idle", headers={"Last-Event-ID": frames[-1].id})).status_code == 204


async def test_a_run_that_is_waited_for_opens_at_once(client: AsyncClient, web: httpx.AsyncClient) -> None:
    async with web.stream("GET", f"/runs/{RUN}?wait_for_run=true") as response:
        frames = frames_of(response)
        assert (await anext(frames)).data == "{}"
        async with client.runs.start("agent", run_id=RUN):
            assert (await anext(frames)).name == "run_started"


async def test_an_evaluations_stream_is_passed_on(client: AsyncClient, web: httpx.AsyncClient) -> None:
    async with client.runs.start("rows", kind="evaluation", run_id=RUN) as run:
        await run.progress("rows", 1, 2)
        run.output = {"x": 1}
    frames = await read(web, f"/evaluations/{RUN}")
    names = [frame.name for frame in frames if frame.name not in CONTROL]
    assert names == ["status", "progress", "progress", "status", "final"]
    assert json.loads(frames[-2].data)["result"]["output"] == {"x": 1}
    again = await read(web, f"/evaluations/{RUN}", frames[3].id)
    assert [frame.name for frame in again if frame.name not in CONTROL] == ["status", "final"]
    assert (await web.get(f"/evaluations/{RUN}", headers={"Last-Event-ID": frames[-2].id})).status_code == 204


async def test_a_stream_that_was_read_or_blocks_is_refused(ended: AsyncClient) -> None:
    request = Request({"type": "http", "method": "GET", "headers": [], "query_string": b""})
    with Client(ended.target) as blocking:
        stream: Any = blocking.runs.stream(RUN)
        with pytest.raises(TypeError, match="stream of AsyncClient"):
            await sse.response(stream, request)


async def test_without_starlette_the_extra_is_named(ended: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.requests", None)
    monkeypatch.delitem(sys.modules, "lavant.client.integrations.starlette", raising=False)
    request: Any = None
    with pytest.raises(ImportError, match=r"pip install 'lavant\[sse\]'"):
        await sse.response(ended.runs.stream(RUN), request)
