"""Credentials that are restricted to some runs: others do not exist for them, and what spans runs is refused."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from grpc import aio

from lavant.server.auth.principal import Principal, Restriction
from lavant.v1 import evaluation_service_pb2, event_service_pb2, rule_service_pb2, run_service_pb2, score_service_pb2
from lavant.v1.event_pb2 import Score
from lavant.v1.run_pb2 import RunKind, RunSettings, RunState
from server.auth.conftest import As
from support.calls import answer, append, create, ended_run, get, listed, publish, publishing
from support.events import a_run_of, run_finished, text_delta
from support.principals import a_principal
from support.rules import a_rule, create_rule, finish
from support.server import Server, Stubs
from support.status import refused, rejection
from support.streams import opened, read_to_end

BLUE: dict[str, Any] = {"labels": {"team": "blue"}}
RED: dict[str, Any] = {"labels": {"team": "red"}}
FOREIGN, MISSING = "foreign", "missing"


@pytest.fixture
def principals() -> list[Principal]:
    """Alice sees all; Blue is restricted to the runs of a team, Chat to a conversation."""
    return [
        a_principal("alice"),
        a_principal("blue", restriction=Restriction(labels={"team": "blue"})),
        a_principal("chat", restriction=Restriction(conversation_id="c1")),
    ]


def score_of(run_id: str) -> score_service_pb2.RecordScoreRequest:
    return score_service_pb2.RecordScoreRequest(
        score_id=f"score-of-{run_id}", run_id=run_id, score=Score(name="correct", number=1.0)
    )


async def stream_to_end(stubs: Stubs, **fields: Any) -> list[Message]:
    call = stubs.events.StreamEvents(event_service_pb2.StreamEventsRequest(consumer_id="ui", **fields), timeout=20)
    return [frame async for frame in call]


async def publish_one(stubs: Stubs, run_id: str) -> Message:
    async with publishing(stubs) as call:
        await publish(call, [text_delta()], first=4, run_id=run_id)
        return await answer(call)


Operation = Callable[[Stubs, str], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "get": lambda stubs, run_id: get(stubs, run_id),
    "wait": lambda stubs, run_id: stubs.runs.WaitRun(
        run_service_pb2.WaitRunRequest(run_id=run_id, timeout={"seconds": 0})  # type: ignore[arg-type]
    ),
    "list-events": lambda stubs, run_id: listed(stubs, run_id),
    "stream": lambda stubs, run_id: stream_to_end(stubs, run_id=run_id, stop=2),
    "stream-with-take-over": lambda stubs, run_id: stream_to_end(stubs, run_id=run_id, stop=2, take_over=True),
    "append": lambda stubs, run_id: append(stubs, [text_delta()], first=4, run_id=run_id),
    "append-a-gap": lambda stubs, run_id: append(stubs, [text_delta()], first=9, run_id=run_id),
    "heartbeat": lambda stubs, run_id: append(stubs, run_id=run_id),
    "publish": publish_one,
    "cancel": lambda stubs, run_id: stubs.runs.CancelRun(run_service_pb2.CancelRunRequest(run_id=run_id)),
    "delete": lambda stubs, run_id: stubs.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id)),
    "record-score": lambda stubs, run_id: stubs.scores.RecordScore(score_of(run_id)),
    "list-scores": lambda stubs, run_id: stubs.scores.ListScores(
        score_service_pb2.ListScoresRequest(filter=score_service_pb2.ScoreFilter(subject_run_id=run_id))
    ),
}


async def outcome_of(operation: Operation, stubs: Stubs, run_id: str) -> str:
    """All that a caller sees, without the run's ID."""
    try:
        seen = str(await operation(stubs, run_id))
    except aio.AioRpcError as error:
        seen = f"{error.code()} {error.details()} {error.trailing_metadata()}"
    return seen.replace(run_id, "RUN")


@pytest.mark.parametrize("state", ["open", "ended"])
async def test_a_run_outside_the_restriction_answers_as_a_missing_one(as_: As, state: str) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await create(alice, FOREIGN, **RED)
    await append(alice, a_run_of(3, finished=state == "ended"), run_id=FOREIGN)
    await alice.scores.RecordScore(score_of(FOREIGN))
    await alice.scores.ListScores(score_service_pb2.ListScoresRequest())  # the index has it
    before = await get(alice, FOREIGN)
    for name, operation in OPERATIONS.items():
        foreign = await outcome_of(operation, blue, FOREIGN)
        assert foreign == await outcome_of(operation, blue, MISSING), name
        assert "weather" not in foreign, name
        assert ("RUN_NOT_FOUND" in foreign) == (name != "list-scores"), (name, foreign)
    assert await get(alice, FOREIGN) == before


@pytest.mark.parametrize("path", ["", "/events", "/stream", "/scores", "/stream?consumer=a&take_over=true"])
@pytest.mark.parametrize("kind", ["runs", "evaluations"])
async def test_a_run_outside_the_restriction_is_missing_over_http(
    as_: As, principals_server: Server, path: str, kind: str
) -> None:
    if kind == "evaluations" and path in {"/events", "/scores"}:
        return
    alice = await as_("alice")
    await ended_run(alice, FOREIGN, kind=RunKind.RUN_KIND_EVALUATION, **RED)
    await alice.scores.RecordScore(score_of(FOREIGN))
    headers = {"Authorization": "Bearer blue"}
    async with httpx.AsyncClient(base_url=f"http://{principals_server.app.http_address}", headers=headers) as web:
        answers = []
        for run_id in (FOREIGN, MISSING):
            response = await web.get(f"/api/v1/{kind}/{run_id}{path}")
            answers.append((response.status_code, response.text.replace(run_id, "RUN"), response.headers.keys()))
        assert answers[0] == answers[1]
        assert answers[0][0] == (200 if path == "/scores" else 404)


async def test_a_run_within_the_restriction_is_used_as_by_others(as_: As) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await create(alice, "own", **BLUE)
    await append(blue, a_run_of(3, finished=False), run_id="own")
    for name, operation in OPERATIONS.items():
        if name not in {"wait", "delete", "append-a-gap", "publish"}:
            assert "NOT_FOUND" not in await outcome_of(operation, blue, "own"), name
    await append(blue, [run_finished()], first=5, run_id="own")
    await OPERATIONS["wait"](blue, "own")
    await OPERATIONS["delete"](blue, "own")
    with refused("RUN_NOT_FOUND"):
        await get(alice, "own")


async def test_only_runs_within_the_restriction_are_created(as_: As) -> None:
    alice, blue, chat = await as_("alice"), await as_("blue"), await as_("chat")
    await create(alice, FOREIGN, **RED)
    with refused("PERMISSION_DENIED") as denied:
        await create(blue, "new", **RED)
    assert denied.status.message == (
        "the credential is restricted to some runs, and a run with this run_id and these settings is none of them; "
        "use the run_id, name, labels and conversation_id of its restriction, or another credential"
    )
    with refused("PERMISSION_DENIED"):
        await create(blue, FOREIGN, **RED)
    with refused("PERMISSION_DENIED"):
        await append(blue, a_run_of(3), run_id="new", create=RunSettings(name="weather"))
    async with publishing(blue) as call:
        await publish(call, a_run_of(3), run_id="new", create=RunSettings(name="weather", **RED))
        rejection((await answer(call)).rejection, "PERMISSION_DENIED")
    with refused("RUN_EXISTS"):
        await create(blue, FOREIGN, **BLUE)
    with refused("RUN_NOT_FOUND"):
        await get(alice, "new")
    assert (await append(blue, a_run_of(4), run_id="b", create=RunSettings(name="b", **BLUE))).last_sequence == 4
    assert (await create(chat, "", conversation_id="c1")).run_id


async def test_lists_and_watches_show_runs_within_the_restriction(as_: As, principals_server: Server) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await create_rule(alice)
    await finish(alice, ["own"], **BLUE)
    await finish(alice, [FOREIGN], **RED)
    page = await blue.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert [run.run_id for run in page.runs] == ["own"]
    headers = {"Authorization": "Bearer blue"}
    async with httpx.AsyncClient(base_url=f"http://{principals_server.app.http_address}", headers=headers) as web:
        assert [run["run_id"] for run in (await web.get("/api/v1/runs")).json()["runs"]] == ["own"]
        assert "runs" not in (await web.get("/api/v1/evaluations")).json()


async def test_a_watch_shows_no_id_of_a_run_outside_the_restriction(as_: As) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await finish(alice, ["own-1", "own-2"], **BLUE)
    await finish(alice, ["foreign-1", "foreign-2"], **RED)
    seen: list[run_service_pb2.WatchRunsResponse] = []

    async def read_until(call: Any, done: Callable[[run_service_pb2.WatchRunsResponse], bool]) -> None:
        while True:
            frame = await call.read()
            seen.append(frame)
            if done(frame):
                return

    running = run_service_pb2.WatchRunsRequest(filter=run_service_pb2.RunFilter(states=[RunState.RUN_STATE_RUNNING]))
    call = blue.runs.WatchRuns(running, timeout=30)
    await read_until(call, lambda frame: frame.caught_up)
    for run_id, settings in (("foreign-3", RED), ("own-3", BLUE)):
        await create(alice, run_id, **settings)
        await append(alice, a_run_of(3, finished=False), run_id=run_id)
        await append(alice, [run_finished()], first=4, run_id=run_id)
        await alice.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id))
    await read_until(call, lambda frame: "own-3" in frame.deleted_run_ids)
    call.cancel()
    for run_id in ("foreign-1", "own-1"):  # while nobody watches
        await alice.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id=run_id))
    running.resume_token = seen[-1].resume_token
    again = blue.runs.WatchRuns(running, timeout=30)
    await read_until(again, lambda frame: "own-1" in frame.deleted_run_ids)
    again.cancel()
    assert "foreign" not in str(seen)


async def test_a_reader_waits_for_a_run_outside_the_restriction_as_for_a_missing_one(as_: As, clock: Any) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await create(alice, "run", **RED)
    await append(alice, a_run_of(3, finished=False))
    held = await opened(alice)
    every = timedelta(seconds=1.25)
    request = event_service_pb2.StreamEventsRequest(
        run_id="run",
        consumer_id="ui",
        wait_for_run=True,
        heartbeat_interval=every,  # type: ignore[arg-type]
    )
    call = blue.events.StreamEvents(request, timeout=60)
    first: Any = await call.read()
    assert first.HasField("opened")
    assert not first.HasField("events")
    await clock.awaited(1.25)
    clock.advance(1.25)
    heartbeat: Any = await call.read()
    assert (heartbeat.heartbeat.last_sequence, heartbeat.heartbeat.HasField("producer_seen_time")) == (0, False)
    await append(alice, [text_delta(), run_finished()], first=4)
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4, 5]
    await alice.runs.DeleteRun(run_service_pb2.DeleteRunRequest(run_id="run"))
    await ended_run(alice, "run", **BLUE)
    *_, last = [frame async for frame in call]
    assert (last.end.reason, last.end.reconnect) == (event_service_pb2.STREAM_END_REASON_MAX_AGE, True)
    request.resume_token = last.resume_token
    frames = [frame async for frame in blue.events.StreamEvents(request, timeout=60)]
    assert [event.sequence for frame in frames for event in frame.events.events] == [1, 2, 3, 4]


SPANNING: dict[str, Callable[[Stubs], Awaitable[Any]]] = {
    "create-rule": lambda stubs: create_rule(stubs),
    "get-rule": lambda stubs: stubs.rules.GetRule(rule_service_pb2.GetRuleRequest(rule_id="rule")),
    "list-rules": lambda stubs: stubs.rules.ListRules(rule_service_pb2.ListRulesRequest()),
    "update-rule": lambda stubs: stubs.rules.UpdateRule(rule_service_pb2.UpdateRuleRequest(rule=a_rule())),
    "delete-rule": lambda stubs: stubs.rules.DeleteRule(rule_service_pb2.DeleteRuleRequest(rule_id="rule")),
    "backfill": lambda stubs: stubs.rules.BackfillRule(rule_service_pb2.BackfillRuleRequest(rule_id="rule")),
    "complete": lambda stubs: stubs.evaluations.CompleteSample(evaluation_service_pb2.CompleteSampleRequest()),
    "list-scores": lambda stubs: stubs.scores.ListScores(score_service_pb2.ListScoresRequest()),
    "query-scores": lambda stubs: stubs.scores.QueryScores(score_service_pb2.QueryScoresRequest()),
    "get-system-run": lambda stubs: get(stubs, "lavant.rule.1"),
    "list-system-run": lambda stubs: listed(stubs, "lavant.alerts"),
    "stream-system-run": lambda stubs: stream_to_end(stubs, run_id="lavant.none"),
}


async def test_what_spans_runs_is_refused_to_a_restricted_credential(as_: As, principals_server: Server) -> None:
    alice, blue = await as_("alice"), await as_("blue")
    await create_rule(alice)
    for name, call in SPANNING.items():
        with refused("PERMISSION_DENIED") as denied:
            await call(blue)
        assert "restricted to some runs" in denied.status.message, name
    samples = blue.evaluations.SampleRuns(evaluation_service_pb2.SampleRunsRequest(rule_id="rule", worker_id="w"))
    with refused("PERMISSION_DENIED"):
        await samples.read()
    headers = {"Authorization": "Bearer blue"}
    async with httpx.AsyncClient(base_url=f"http://{principals_server.app.http_address}", headers=headers) as web:
        of_runs = ("runs/lavant.rule.1", "runs/lavant.x/scores", "evaluations/lavant.rule.1/stream")
        for path in ("rules", "rules/rule", "alerts", "scores", "scores/summary", *of_runs):
            response = await web.get(f"/api/v1/{path}")
            assert (path, response.status_code) == (path, 403)
            assert response.json()["error"]["reason"] == "PERMISSION_DENIED"
