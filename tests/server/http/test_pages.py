"""Runs and events as JSON, and what is refused before it is read."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict, Parse

from lavant.client import AsyncClient
from lavant.server.errors import StartError
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import ListRunsRequest
from server.http.reading import Parser
from support.calls import create
from support.rules import create_rule
from support.server import Server, serving


async def some_runs(client: AsyncClient) -> list[str]:
    ids = []
    for number in range(5):
        async with client.runs.start(f"agent {number}", labels={"n": str(number % 2)}) as run:
            await run.text("x")
        ids.append(run.id)
    await client.runs.create("evaluated", kind="evaluation")
    return ids


async def listed(web: httpx.AsyncClient, path: str, items: str, **asked: Any) -> list[Any]:
    """All items of a list, page by page."""
    found, token = [], ""
    while True:
        page = (await web.get(path, params={**asked, "page_token": token})).raise_for_status().json()
        found += page.get(items, [])
        if page.get("next_page_token", "") in ("", token):
            return found
        token = page["next_page_token"]


async def test_pages_of_runs(client: AsyncClient, web: httpx.AsyncClient, server: Server) -> None:
    ids = await some_runs(client)
    runs = await listed(web, "/api/v1/runs", "runs", page_size=2)
    assert [run["name"] for run in runs] == ["evaluated", *(f"agent {n}" for n in (4, 3, 2, 1, 0))]
    for asked, count in (
        ({"label": "n=1"}, 2),
        ({"name": ["agent 1", "agent 3"]}, 2),
        ({"kind": "evaluation"}, 1),
        ({"state": ["queued", "failed"]}, 1),
        ({"created_after": "2999-01-01T00:00:00Z"}, 0),
        ({"kind": "agent", "label": "n=0", "name": "agent 4"}, 1),
    ):
        assert len(await listed(web, "/api/v1/runs", "runs", **asked)) == count, asked
    assert [run["name"] for run in await listed(web, "/api/v1/evaluations", "runs")] == ["evaluated"]
    run = (await web.get(f"/api/v1/runs/{ids[0]}")).json()
    assert Parse(json.dumps(run), Run()).name == "agent 0"
    assert (await web.get(f"/api/v1/evaluations/{ids[0]}")).status_code == 404


async def test_pages_of_events(client: AsyncClient, web: httpx.AsyncClient) -> None:
    run_id = (await some_runs(client))[0]
    events = await listed(web, f"/api/v1/runs/{run_id}/events", "events", page_size=2)
    log = [event.proto async for event in client.runs.events(run_id)]
    assert [Parse(json.dumps(event), Event()) for event in events] == log
    deltas = await listed(web, f"/api/v1/runs/{run_id}/events", "events", type="text_delta")
    assert [event["text_delta"]["text"] for event in deltas] == ["x"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/v1/runs/none", 404, "run none does not exist"),
        ("/api/v1/runs/none/events", 404, "run none does not exist"),
        ("/api/v1/runs/none/stream", 404, "run none does not exist"),
        ("/api/v1/evaluations/none/stream", 404, "run none does not exist"),
        ("/api/v1/runs/..%2f..%2fetc", 404, "there is nothing at this path"),
        ("/api/v1/runs/%00", 400, "run_id: must be 1 to 128 characters"),
        ("/api/v1/nothing", 404, "there is nothing at this path"),
        ("/static/..%2fapi.py", 404, "there is nothing at this path"),
        ("/api/v1/runs?page_size=-1", 400, "page_size: must be greater than or equal to 1"),
        ("/api/v1/runs?page_size=0", 400, "page_size: must be greater than or equal to 1"),
        ("/api/v1/runs?page_size=1001", 400, "page_size: must be less than or equal to 1000"),
        ("/api/v1/runs?page_size=1&page_size=2", 400, "page_size: may be given once"),
        ("/api/v1/runs?page_token=x", 400, "page_token: was not issued by this list"),
        ("/api/v1/runs?state=done", 400, "state: must be one of queued, running"),
        ("/api/v1/runs?label=a", 400, "label: must be NAME=VALUE"),
        ("/api/v1/runs?created_after=yesterday", 400, "created_after: must be a time in RFC 3339 format"),
        ("/api/v1/runs?limit=5", 400, "limit: is not a parameter of this path; use one of conversation_id"),
        ("/api/v1/evaluations?kind=agent", 400, "kind: is not a parameter of this path"),
        ("/api/v1/runs/r/events?type=x", 400, "type: must be one of run_started"),
        ("/api/v1/watch?last_event_id=x", 400, "resume_token: was not issued by this list"),
        ("/api/v1/watch?last_event_id=~", 400, "the resume token cannot be used: it is empty"),
        ("/api/v1/watch?consumer=ui", 400, "consumer: is not a parameter of this path"),
        ("/api/v1/runs?label=a=1&label=a=2", 400, "label: has two values of a"),
        ("/api/v1/runs?created_after=2026-05-04T10:00:00", 400, "created_after: must be a time"),
        ("/api/v1/runs?created_after=0001-01-01T00:00:00%2B01:00", 400, "created_after: must be a time"),
        ("/api/v1/runs?page_size=%D9%A1", 400, "page_size: must be a valid integer"),
        ("/api/v1/runs?created_before=2026-01-01T00:00:00Z&created_before=2027-01-01T00:00:00Z", 400, "created_before"),
        ("/api/v1/runs/made/stream?idle_timeout=0.5", 400, "idle_timeout: must be 1 s"),
        ("/api/v1/runs/made/stream?idle_timeout=inf", 400, "idle_timeout: must be a number of seconds"),
        ("/api/v1/runs/made/stream?heartbeat_interval=61", 400, "heartbeat_interval: must be 1 s to 60 s"),
        ("/api/v1/runs/made/stream?consumer=%00", 400, "consumer_id: must not contain control characters"),
        ("/api/v1/runs/made/stream?deltas=some", 400, "deltas: must be one of all, merged, none"),
        ("/api/v1/runs/made/stream?start=end", 400, "start: must be one of beginning, now"),
        ("/api/v1/runs/made/stream?stop=never", 400, "stop: must be one of"),
        ("/api/v1/runs/made/stream?page_size=1", 400, "page_size: is not a parameter of this path"),
        *(
            (f"/api/v1/runs/made/stream?{name}={value}&{name}={value}", 400, f"{name}: may be given once")
            for name, value in {
                "consumer": "a",
                "session": "a",
                "last_event_id": "a",
                "take_over": "true",
                "deltas": "all",
                "start": "now",
                "stop": "head",
                "idle_timeout": "5",
                "heartbeat_interval": "5",
            }.items()
        ),
    ],
)
async def test_what_is_wrong_is_named(
    web: httpx.AsyncClient, server: Server, path: str, status: int, said: str
) -> None:
    await create(server.stubs, "made")
    answer = await web.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(said)
    assert set(answer.json()) == {"error"}
    if "/stream" not in path and "/watch" not in path:
        head = await web.head(path)
        assert (head.status_code, head.content) == (status, b"")


async def test_pages_are_those_of_grpc(client: AsyncClient, web: httpx.AsyncClient, server: Server) -> None:
    run_id = (await some_runs(client))[0]
    stubs, token = server.stubs, ""
    for _ in range(4):
        runs = await stubs.runs.ListRuns(ListRunsRequest(page_size=2, page_token=token))
        page = (await web.get("/api/v1/runs", params={"page_size": 2, "page_token": token})).json()
        assert page == MessageToDict(runs, preserving_proto_field_name=True)
        token = runs.next_page_token
    token = ""
    for _ in range(4):
        events = await stubs.events.ListEvents(ListEventsRequest(run_id=run_id, page_size=2, page_token=token))
        page = (await web.get(f"/api/v1/runs/{run_id}/events", params={"page_size": 2, "page_token": token})).json()
        assert page == MessageToDict(events, preserving_proto_field_name=True)
        token = events.next_page_token
    assert (await web.get(f"/api/v1/runs/{run_id}/events", params={"page_token": "x"})).status_code == 400


async def test_runs_are_watched_and_the_watch_resumes(web: httpx.AsyncClient, server: Server) -> None:
    for number in range(120):
        await create(server.stubs, f"r{number}", labels={"n": str(number % 2)})
    seen, last_id = [], ""
    for expected in (60, 61):
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with web.stream("GET", "/api/v1/watch", params={"label": "n=0"}, headers=headers) as response:
            parser = Parser()
            async for line in response.aiter_lines():
                event = parser.take(line)
                if event is not None and event.name == "run":
                    seen.append(json.loads(event.data)["run_id"])
                last_id = parser.last_id
                if len(seen) == expected and not line and last_id:
                    break
        await create(server.stubs, f"new{expected}", labels={"n": "0"})
    assert seen == [*(f"r{number}" for number in range(0, 120, 2)), "new60"]


async def test_http_only_reads(web: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused = await web.request(method, "/api/v1/runs")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    for path in ("/", "/static/app.js", "/api/v1/runs", "/api/v1/watch"):
        head = await web.head(path)
        assert (head.status_code, head.content) == (200, b""), path
    assert (await web.head("/api/v1/watch")).headers["content-type"].startswith("text/event-stream")
    assert (await web.request("GET", "/api/v1/runs", content=b"x" * 70_000)).status_code == 413
    assert (await web.get("/api/v1/runs", params={"name": "x" * 9_000})).status_code == 414


async def test_strangers_are_refused(web: httpx.AsyncClient, server: Server) -> None:
    own = f"http://{server.app.http_address}"
    for headers, status in (
        ({"Origin": own}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": own.removeprefix("http://")}, 403),
        ({"Origin": own.replace("http:", "ftp:")}, 403),
        ({"Origin": f"{own}.evil.example"}, 403),
        ({"Origin": "http://evil.example", "Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": own.replace("127.0.0.1", "localhost")}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]"}, 200),
    ):
        answer = await web.get("/api/v1/runs", headers=headers)
        assert answer.status_code == status, headers
        assert "access-control-allow-origin" not in answer.headers


async def test_strangers_may_be_let_in(tmp_path: Path) -> None:
    allowed: dict[str, Any] = {"http_origins": ["https://ui.example"], "http_hosts": ["lavant.test"]}
    async with (
        serving(tmp_path, http="127.0.0.1:0", **allowed) as server,
        httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web,
    ):
        for path in ("/api/v1/runs", "/api/v1/runs/none/stream"):
            answer = await web.get(path, headers={"Origin": "https://ui.example", "Host": "lavant.test"})
            assert answer.headers["access-control-allow-origin"] == "https://ui.example"
            assert answer.headers["vary"] == "Origin"
        for headers in ({"Origin": "http://ui.example"}, {"Origin": "https://ui.example:1"}, {"Host": "other.test"}):
            assert (await web.get("/api/v1/runs", headers=headers)).status_code == 403


async def test_no_host_is_nobodys_own(server: Server) -> None:
    host, port = server.app.http_address.split(":")
    for origin in ("null", "x", "http://"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /api/v1/runs HTTP/1.0\r\nOrigin: {origin}\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"403"
        writer.close()


async def test_every_answer_is_guarded(web: httpx.AsyncClient) -> None:
    for path in ("/", "/static/app.js", "/api/v1/runs", "/api/v1/runs/none"):
        headers = (await web.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_streams_are_counted_apart(client: AsyncClient, web: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    run_id = (await some_runs(client))[0]
    await web.get(f"/api/v1/runs/{run_id}/stream")
    scraped = (await admin.get("/metrics")).text.splitlines()
    assert 'lavant_streams_ended_total{protocol="http",reason="RUN_FINISHED"} 1.0' in scraped
    assert not [line for line in scraped if line.startswith('lavant_streams_ended_total{protocol="grpc"')]


async def test_an_address_that_is_taken_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="Address already in use; choose another with --http, or off"):
            async with serving(tmp_path, http=f"127.0.0.1:{taken.getsockname()[1]}"):
                pass


async def test_http_may_be_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert server.app.http_address == "off"
        await create(server.stubs)


async def test_system_runs_are_among_evaluations_but_not_among_runs(server: Server, web: httpx.AsyncClient) -> None:
    await create(server.stubs, "run")
    await create_rule(server.stubs)

    async def ids(path: str) -> list[str]:
        return [run["run_id"] for run in (await web.get(path)).json()["runs"]]

    assert await ids("/api/v1/runs") == ["run"]
    assert await ids("/api/v1/runs?include_system_runs=true") == ["lavant.rule.1", "run"]
    assert await ids("/api/v1/evaluations") == ["lavant.rule.1"]
