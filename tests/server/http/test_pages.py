"""Runs and events as JSON, and what is refused before it is looked at."""

import json
import math
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict, Parse
from hypothesis import given
from hypothesis import strategies as st

from lavant.client import AsyncClient
from lavant.server.errors import StartError
from lavant.server.http.json_text import to_json
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run
from support.server import Server, serving

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


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
        ("/api/v1/runs?page_size=-1", 400, "page_size: must be a whole number"),
        ("/api/v1/runs?page_size=1001", 400, "page_size: must be 0 to 1000"),
        ("/api/v1/runs?page_size=1&page_size=2", 400, "page_size: may be given once"),
        ("/api/v1/runs?page_token=x", 400, "page_token: was not issued by this list"),
        ("/api/v1/runs?state=done", 400, "state: must be one of queued, running"),
        ("/api/v1/runs?label=a", 400, "label: must be NAME=VALUE"),
        ("/api/v1/runs?created_after=yesterday", 400, "created_after: must be a time as RFC 3339 has it"),
        ("/api/v1/runs?limit=5", 400, "limit: is no parameter of this; there are conversation_id"),
        ("/api/v1/evaluations?kind=agent", 400, "kind: is evaluation here"),
        ("/api/v1/runs/r/events?type=x", 400, "type: must be one of run_started"),
        ("/api/v1/watch?last_event_id=x", 400, "resume_token: was not issued by this list"),
    ],
)
async def test_what_is_wrong_is_told(web: httpx.AsyncClient, path: str, status: int, said: str) -> None:
    answer = await web.get(path)
    if answer.status_code == 200:  # A watch has begun by the time its token is read.
        assert said in answer.text
        return
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(said)


async def test_http_only_reads(web: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refused = await web.request(method, "/api/v1/runs")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    head = await web.head("/api/v1/runs")
    assert (head.status_code, head.content) == (200, b"")
    assert (await web.request("GET", "/api/v1/runs", content=b"x" * 70_000)).status_code == 413
    assert (await web.get("/api/v1/runs", params={"name": "x" * 9_000})).status_code == 414


async def test_strangers_are_refused(web: httpx.AsyncClient, server: Server) -> None:
    own = f"http://{server.app.http_address}"
    for headers, status in (
        ({"Origin": own}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
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
        answer = await web.get("/api/v1/runs", headers={"Origin": "https://ui.example", "Host": "lavant.test"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://ui.example")


async def test_every_answer_is_guarded(web: httpx.AsyncClient) -> None:
    for path in ("/", "/static/app.js", "/api/v1/runs", "/api/v1/runs/none", "/healthz"):
        headers = (await web.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_streams_are_counted_apart(client: AsyncClient, web: httpx.AsyncClient) -> None:
    run_id = (await some_runs(client))[0]
    await web.get(f"/api/v1/runs/{run_id}/stream")
    scraped = (await web.get("/metrics")).text.splitlines()
    assert 'lavant_streams_ended_total{face="http",reason="RUN_FINISHED"} 1.0' in scraped
    assert not [line for line in scraped if line.startswith('lavant_streams_ended_total{face="grpc"')]


async def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="Address already in use; give --http another, or off"):
            async with serving(tmp_path, http=f"127.0.0.1:{taken.getsockname()[1]}"):
                pass


@given(
    INT64, TEXT, TEXT, st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999), st.floats(),
    st.binary(max_size=50), st.integers(-(2**31), 2**31 - 1),
)  # fmt: skip
def test_json_is_what_protobuf_says(
    number: int, text: str, name: str, seconds: int, nanos: int, real: float, data: bytes, choice: int
) -> None:
    event = Event(sequence=number, event_id=text, step_id=name, attributes={name: text, text: name})
    event.event_time.seconds, event.event_time.nanos = seconds, nanos
    row = event.row_finished
    row.row_id, row.iteration = text, choice
    row.metrics[name] = real
    row.scores.add(name=text, number=real).evaluator.name = name
    row.scores.add(passed=False)
    row.duration.seconds, row.duration.nanos = abs(seconds) % 315_576_000_000, nanos
    other = Event()
    other.artifact_updated.data = data
    other.step_started.kind = choice  # type: ignore[assignment]
    for message in (event, other):
        expected = MessageToDict(message, preserving_proto_field_name=True)
        written = json.loads(to_json(message))
        assert _comparable(written) == _comparable(expected)
        assert to_json(message).isascii()
        assert "\n" not in to_json(message)


def _comparable(value: Any) -> Any:
    """The same, with all that is no number as text."""
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
