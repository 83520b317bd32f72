"""Evaluations as server-sent events, with the names that dashboards know."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.v1.event_pb2 import Event, ProgressReported, RowFinished
from lavant.v1.run_pb2 import Error, EvaluationSummary, RunKind, RunState
from server.http.reading import read, read_all
from support.calls import append, create
from support.clock import ManualClock
from support.events import identified, run_finished, run_started, run_state_changed
from support.server import Server, serving

HOSTILE = 'a\r\nb\n\nevent: end\ndata: {}\n\n\u2028\x00\U0001f600 \\ " <script>'
STREAM = "/api/v1/evaluations/run/stream"


def row(number: int, **scores: float | bool | str) -> Event:
    """A row, with the scores that are given."""
    finished = RowFinished(
        row_id=f"case {number}", iteration=1, input_json='{\n"city":\r\n"Oslo"}', output_json='"cold"',
        expected_output_json="true", metrics={"tokens": 12},
    )  # fmt: skip
    finished.duration.FromMilliseconds(1500)
    for name, value in scores.items():
        score = finished.scores.add(name=name, explanation="so")
        if isinstance(value, bool):
            score.passed = value
        elif isinstance(value, str):
            score.label = value
        else:
            score.number = value
    return identified(Event(row_finished=finished))


def progress(done: int, total: int) -> Event:
    return identified(Event(progress_reported=ProgressReported(label="rows", completed=done, total=total)))


async def evaluation(server: Server, *rows: Event, state: "RunState.ValueType" = RunState.RUN_STATE_SUCCEEDED) -> None:
    """Record an evaluation."""
    began = run_started()
    began.run_started.evaluation.row_count = len(rows)
    ended = run_finished(state)
    ended.run_finished.evaluation.CopyFrom(
        EvaluationSummary(rows_succeeded=2, rows_failed=1, mean_scores={"a": 0.5, "b": 1.0}, accuracy=0.25)
    )
    done = [event for number, one in enumerate(rows, 1) for event in (one, progress(number, len(rows)))]
    await create(server.stubs, kind=RunKind.RUN_KIND_EVALUATION)
    await append(server.stubs, [began, *done, ended])


async def said(web: httpx.AsyncClient, last_id: str = "") -> list[tuple[str, Any]]:
    sent = await read_all(web, STREAM, last_id)
    return [(event.name, json.loads(event.data)) for event in sent if event.name not in {"opened", "caught_up", "end"}]


async def test_an_evaluation_that_is_completed(server: Server, web: httpx.AsyncClient) -> None:
    await evaluation(server, row(1, correct=True, similar=0.5), row(2, kind="warm"))
    events = await said(web)
    assert [name for name, _ in events] == [
        "status", "progress", "row_complete", "progress", "row_complete", "progress", "status", "final",
    ]  # fmt: skip
    assert events[0][1] == {"status": "running", "state": "running"}
    assert events[1][1] == {"rows_complete": 0, "rows_total": 2}
    assert events[2][1] == {
        "row": {
            "id": "case 1", "iteration": 1, "score": 0.75, "input": {"city": "Oslo"}, "output": "cold",
            "expected": True, "duration": 1.5, "metrics": {"tokens": 12.0},
            "scores": [
                {"name": "correct", "value": True, "explanation": "so"},
                {"name": "similar", "value": 0.5, "explanation": "so"},
            ],
        }
    }  # fmt: skip
    assert "score" not in events[4][1]["row"]
    assert events[-2][1] == {"status": "completed", "state": "succeeded"}
    result = events[-1][1]["result"]
    assert (result["accuracy"], result["mean_scores"], result["output"]) == (
        0.25,
        {"a": 0.5, "b": 1.0},
        "cold",
    )
    assert (result["rows_succeeded"], result["rows_failed"], result["state"]) == (2, 1, "succeeded")


async def test_an_evaluation_resumes_behind_any_row(server: Server, web: httpx.AsyncClient) -> None:
    await evaluation(server, *(row(number, correct=True) for number in range(5)))
    sent = await read_all(web, STREAM)
    rows = [event for event in sent if event.name == "row_complete"]
    for number, event in enumerate(rows):
        rest = [data["row"]["id"] for name, data in await said(web, event.last_id) if name == "row_complete"]
        assert rest == [f"case {later}" for later in range(number + 1, 5)]


@pytest.mark.parametrize(
    ("state", "status", "last"),
    [
        (RunState.RUN_STATE_FAILED, "failed", "error"),
        (RunState.RUN_STATE_TIMED_OUT, "failed", "error"),
        (RunState.RUN_STATE_CANCELLED, "cancelled", "final"),
    ],
)
async def test_an_evaluation_that_ends_otherwise(
    server: Server, web: httpx.AsyncClient, state: "RunState.ValueType", status: str, last: str
) -> None:
    await evaluation(server, row(1, correct=True), state=state)
    *_, (_, told), (name, data) = await said(web)
    assert told == {"status": status, "state": RunState.Name(state).removeprefix("RUN_STATE_").lower()}
    assert (name, data["result"]["rows_failed"]) == (last, 1)
    assert data.get("error") == ({"message": "it broke", "type": "ValueError"} if last == "error" else None)


async def test_a_run_of_another_kind_is_no_evaluation(server: Server, web: httpx.AsyncClient) -> None:
    await create(server.stubs)
    assert (await web.get(STREAM)).status_code == 404


async def test_an_evaluation_that_its_producer_abandons(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        serving(tmp_path, clock=clock, http="127.0.0.1:0") as server,
        httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=20) as web,
    ):
        await create(server.stubs, kind=RunKind.RUN_KIND_EVALUATION, producer_timeout=Duration(seconds=5))
        await append(server.stubs, [run_started(), row(1, correct=False)])
        async with asyncio.timeout(20), web.stream("GET", STREAM) as response:
            events = []
            async for event in read(response):
                events.append((event.name, json.loads(event.data)))
                if event.name == "caught_up":
                    clock.advance(6.1)
    *_, status, error, end = events
    assert status == ("status", {"status": "failed", "state": "abandoned"})
    assert error[0] == "error"
    assert error[1]["error"]["type"] == "producer_silent"
    assert error[1]["result"]["state"] == "abandoned"
    assert end == ("end", {"reason": "RUN_FINISHED", "reconnect": False})


async def test_an_evaluation_that_waits_goes_on_and_fails_in_a_row(server: Server, web: httpx.AsyncClient) -> None:
    failed = row(1)
    failed.row_finished.error.CopyFrom(Error(type="ValueError", message=HOSTILE))
    failed.row_finished.input_json = json.dumps(HOSTILE, ensure_ascii=False, indent="\r\n")
    failed.row_finished.output_json = json.dumps([HOSTILE, {"\u2028": "\x85"}], ensure_ascii=False, indent=4)
    failed.row_finished.subject_run_id = "subject"
    scored = row(2, similar=0.5, correct=True)
    scored.row_finished.scores[0].evaluator.name, scored.row_finished.scores[0].evaluator.version = "judge", "2"
    scored.row_finished.scores.add(name="broken").error.message = HOSTILE
    events = [
        run_started(), run_state_changed(), run_state_changed(RunState.RUN_STATE_RUNNING), failed, scored,
        run_finished(),
    ]  # fmt: skip
    await create(server.stubs, kind=RunKind.RUN_KIND_EVALUATION)
    await append(server.stubs, events)
    told = await said(web)
    assert [data["state"] for name, data in told if name == "status"] == [
        "running", "input_required", "running", "succeeded",
    ]  # fmt: skip
    first, second = (data["row"] for name, data in told if name == "row_complete")
    assert (first["error"], first["input"]) == ({"type": "ValueError", "message": HOSTILE}, HOSTILE)
    assert first["output"] == [HOSTILE, {"\u2028": "\x85"}]
    assert (first["run_id"], first["scores"]) == ("subject", [])
    assert second["scores"] == [
        {"name": "similar", "value": 0.5, "explanation": "so", "evaluator": "judge", "version": "2"},
        {"name": "correct", "value": True, "explanation": "so"},
        {"name": "broken", "error": {"message": HOSTILE}},
    ]
    assert second["metrics"] == {"tokens": 12.0}
    assert told[-1][1]["result"]["mean_scores"] == {}
    assert "accuracy" not in told[-1][1]["result"]


async def test_an_evaluation_ends_with_204(server: Server, web: httpx.AsyncClient) -> None:
    await evaluation(server, row(1, correct=True))
    last = (await read_all(web, STREAM))[-1]
    assert (await web.get(STREAM, headers={"Last-Event-ID": last.last_id})).status_code == 204


async def test_a_queued_evaluation_says_so_each_time_that_it_is_opened(server: Server, web: httpx.AsyncClient) -> None:
    await create(server.stubs, kind=RunKind.RUN_KIND_EVALUATION)
    last_id = ""
    for _ in range(2):
        async with asyncio.timeout(20), web.stream("GET", STREAM, headers={"last-event-id": last_id}) as response:
            events = read(response)
            opened, status = await anext(events), await anext(events)
        assert (opened.name, status.name) == ("opened", "status")
        assert json.loads(status.data) == {"status": "queued", "state": "queued"}
        last_id = opened.last_id
        assert last_id


async def test_an_evaluation_can_be_waited_for(server: Server, web: httpx.AsyncClient) -> None:
    assert (await web.get(STREAM)).status_code == 404
    assert (await web.get(STREAM, params={"wait_for_run": "perhaps"})).status_code == 400
    async with asyncio.timeout(20), web.stream("GET", STREAM, params={"wait_for_run": "true"}) as response:
        events = read(response)
        assert (await anext(events)).data == "{}"
        await evaluation(server, row(1, correct=True))
        names = [event.name async for event in events if event.name != "caught_up"]
    assert names == ["status", "progress", "row_complete", "progress", "status", "final", "end"]
