"""Scores as JSON: listed, added up and compared as gRPC does it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1 import score_service_pb2 as pb
from lavant.v1.event_pb2 import ScoreRecorded
from server.http.scored import ago, keep
from server.http.test_pages import listed
from support.calls import create
from support.scores import record, recorded, score
from support.server import Server, serving

FIRST, LAST = "2026-05-04T08:00:00Z", "2026-05-04T12:00:00Z"


def some_scores() -> list[ScoreRecorded]:
    scores = []
    for number in range(80):
        hours = 7.95 - number / 10
        worse = 0.0 if hours > 4 else 0.3
        fields: dict[str, Any] = {"run": f"r{number}", "time_ns": ago(hours), "labels": {"team": "ab"[number % 2]}}
        version = "1" if hours > 2 else "2"
        value = None if number == 79 else 0.9 - worse + number % 3 / 100
        scores.append(recorded("correct", value, evaluator="judge", version=version, **fields))
        scores.append(recorded("kept", number % 4 > 0, rule_id="other", agent=f"agent {number % 2}", **fields))
    return scores


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    await keep(tmp_path, some_scores())
    async with serving(tmp_path, http="127.0.0.1:0") as running:
        yield running


def timestamp(text: str) -> Timestamp:
    time = Timestamp()
    time.FromJsonString(text)
    return time


async def get_json(web: httpx.AsyncClient, path: str, **asked: Any) -> Any:
    return (await web.get(path, params=asked)).raise_for_status().json()


async def test_pages_of_scores(web: httpx.AsyncClient, server: Server) -> None:
    scores = await listed(web, "/api/v1/scores", "scores", page_size=33)
    assert len(scores) == 160
    times = [one["subject_time"] for one in scores]
    assert times == sorted(times, reverse=True)
    for asked, count in (
        ({"name": "correct"}, 80),
        ({"name": ["correct", "kept"], "label": "team=a"}, 80),
        ({"rule_id": "other", "run_name": "agent 1"}, 40),
        ({"evaluator": "judge", "version": "2"}, 20),
        ({"version": ""}, 80),
        ({"rule_id": ""}, 0),
        ({"subject_run_id": "r7"}, 2),
        ({"subject_ended_after": FIRST, "subject_ended_before": LAST, "name": "correct"}, 40),
        ({"subject_ended_after": LAST}, 0),
    ):
        assert len(await listed(web, "/api/v1/scores", "scores", **asked)) == count, asked
    page = await server.stubs.scores.ListScores(pb.ListScoresRequest(page_size=3))
    assert await get_json(web, "/api/v1/scores", page_size=3) == MessageToDict(page, preserving_proto_field_name=True)


async def test_feedback_is_found_with_the_run_and_without_a_rule(web: httpx.AsyncClient, server: Server) -> None:
    await create(server.stubs, "r7")
    await record(server.stubs, "said", score("helpful", value=True, evaluator="ann"), "r7")
    of_run = await listed(web, "/api/v1/runs/r7/scores", "scores")
    assert {one["score"]["name"] for one in of_run} == {"correct", "kept", "helpful"}
    (feedback,) = await listed(web, "/api/v1/scores", "scores", rule_id="")
    assert feedback["score"] == {"name": "helpful", "passed": True, "evaluator": {"name": "ann"}}
    assert "rule_id" not in feedback
    assert await listed(web, "/api/v1/runs/r7/scores", "scores", rule_id="") == [feedback]
    assert await listed(web, "/api/v1/runs/nobody/scores", "scores") == []


async def test_scores_are_added_up(web: httpx.AsyncClient, server: Server) -> None:
    summary = await get_json(
        web,
        "/api/v1/scores/summary",
        group_by=["name", "version"],
        group_by_label="team",
        bucket="2h",
        percentile=["50", "99.5"],
        subject_ended_after=FIRST,
        subject_ended_before=LAST,
    )
    request = pb.QueryScoresRequest(
        filter=pb.ScoreFilter(subject_ended_after=timestamp(FIRST), subject_ended_before=timestamp(LAST)),
        group_by=[pb.SCORE_DIMENSION_NAME, pb.SCORE_DIMENSION_VERSION],
        group_by_labels=["team"],
        bucket=Duration(seconds=7_200),
        percentiles=[50, 99.5],
    )
    assert summary == MessageToDict(await server.stubs.scores.QueryScores(request), preserving_proto_field_name=True)
    first, last = summary["groups"][0], summary["groups"][-1]
    assert (first["start_time"], first["labels"]["team"], first["count"]) == (FIRST, "a", "10")
    assert (last["name"], last["pass_rate"], last["start_time"]) == ("kept", 1, "2026-05-04T10:00:00Z")
    assert summary["groups"][-2]["pass_rate"] == 0.5
    assert sum(int(group.get("error_count", 0)) for group in summary["groups"]) == 1
    (whole,) = (await get_json(web, "/api/v1/scores/summary"))["groups"]
    assert (whole["count"], len(whole["percentiles"])) == ("160", 4)


@pytest.mark.parametrize("bucket", ["60", "60.0", "60s", "1m"])
async def test_a_bucket_is_said_in_many_ways(web: httpx.AsyncClient, bucket: str) -> None:
    asked = {"name": "kept", "subject_ended_after": FIRST}
    groups = (await get_json(web, "/api/v1/scores/summary", bucket=bucket, **asked))["groups"]
    assert [group["count"] for group in groups] == ["1"] * 40


async def test_a_time_is_compared_with_another(web: httpx.AsyncClient, server: Server) -> None:
    asked = {"name": "correct", "subject_ended_after": FIRST, "subject_ended_before": LAST}
    before = {"baseline_ended_after": "2026-05-04T04:00:00Z", "baseline_ended_before": FIRST}
    (change,) = (await get_json(web, "/api/v1/scores/comparison", **asked, **before))["changes"]
    assert change["trend"] == "SCORE_TREND_REGRESSED"
    assert (change["baseline_count"], change["candidate_count"]) == ("40", "39")
    assert change["difference_low"] < change["difference"] < change["difference_high"] < -0.2
    (few,) = (await get_json(web, "/api/v1/scores/comparison", **asked, **before, min_count=40))["changes"]
    assert few["trend"] == "SCORE_TREND_TOO_FEW"
    request = pb.CompareScoresRequest(
        baseline=pb.ScoreFilter(
            names=["correct"],
            subject_ended_after=timestamp("2026-05-04T04:00:00Z"),
            subject_ended_before=timestamp(FIRST),
        ),
        candidate=pb.ScoreFilter(
            names=["correct"], subject_ended_after=timestamp(FIRST), subject_ended_before=timestamp(LAST)
        ),
        confidence=0.999,
    )
    response = await server.stubs.scores.CompareScores(request)
    sure = await get_json(web, "/api/v1/scores/comparison", **asked, **before, confidence="0.999")
    assert sure == MessageToDict(response, preserving_proto_field_name=True)


async def test_a_version_is_compared_with_another(web: httpx.AsyncClient) -> None:
    asked = {"name": "correct", "version": "2", "baseline_version": "1"}
    (change,) = (await get_json(web, "/api/v1/scores/comparison", **asked, min_count=10))["changes"]
    assert (change["baseline_count"], change["candidate_count"]) == ("60", "19")
    assert change["trend"] == "SCORE_TREND_REGRESSED"


async def test_without_alerts_there_are_none(web: httpx.AsyncClient) -> None:
    assert await get_json(web, "/api/v1/alerts", page_size=1) == {}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/v1/scores?kind=agent", 400, "kind: is not a parameter of this path; use one of evaluator"),
        ("/api/v1/scores?page_size=1001", 400, "page_size: must be less than or equal to 1000"),
        ("/api/v1/scores?page_token=x", 400, "page_token: was not issued by this list"),
        ("/api/v1/scores?subject_run_id=a&subject_run_id=a", 400, "subject_run_id: may be given once"),
        ("/api/v1/scores?label=a", 400, "label: must be NAME=VALUE"),
        ("/api/v1/scores?label=a=1&label=a=2", 400, "label: has two values of a"),
        ("/api/v1/scores?subject_ended_after=now", 400, "subject_ended_after: must be a time in RFC 3339 format"),
        ("/api/v1/scores?name=%00", 400, "filter.names[0]: must not contain control characters"),
        ("/api/v1/scores/summary?page_size=1", 400, "page_size: is not a parameter of this path"),
        (
            "/api/v1/scores/summary?group_by=day",
            400,
            "group_by: must be one of rule, name, evaluator, version, run_name",
        ),
        ("/api/v1/scores/summary?group_by_label=a&group_by_label=%00", 400, "group_by_labels[1]: must not contain"),
        ("/api/v1/scores/summary?bucket=1w", 400, "bucket: must be a number of seconds, or of m, h or d, such as 15m"),
        ("/api/v1/scores/summary?bucket=999999999d", 400, "bucket: must be a number of seconds, or of m, h or d"),
        ("/api/v1/scores/summary?bucket=59", 400, "bucket: must be 60 s to"),
        ("/api/v1/scores/summary?bucket=1h&bucket=1h", 400, "bucket: may be given once"),
        ("/api/v1/scores/summary?percentile=100", 400, "percentiles[0]: must be above 0 and below 100"),
        ("/api/v1/scores/summary?percentile=nan", 400, "percentile: must be a finite number"),
        ("/api/v1/scores/comparison", 400, "baseline_ended_after: is missing; set one of baseline_ended_after"),
        ("/api/v1/scores/comparison?baseline_version=1&bucket=1h", 400, "bucket: is not a parameter of this path"),
        ("/api/v1/scores/comparison?baseline_version=1&confidence=1", 400, "confidence: must be above 0.5"),
        ("/api/v1/scores/comparison?baseline_version=1&confidence=x", 400, "confidence: must be a valid number"),
        (
            "/api/v1/scores/comparison?baseline_version=1&min_count=-1",
            400,
            "min_count: must be at least 2",
        ),
        ("/api/v1/scores/else", 404, "there is nothing at this path"),
        ("/api/v1/runs/r/scores?subject_run_id=r", 400, "subject_run_id: is not a parameter of this path"),
        ("/api/v1/alerts?rule_id=r", 400, "rule_id: is not a parameter of this path; use one of page_size, page_token"),
        ("/api/v1/alerts?page_size=1001", 400, "page_size: must be less than or equal to 1000"),
    ],
)
async def test_what_is_wrong_is_named(web: httpx.AsyncClient, path: str, status: int, said: str) -> None:
    answer = await web.get(path)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert answer.json()["error"]["message"].startswith(said)
    head = await web.head(path)
    assert (head.status_code, head.content) == (status, b"")


async def test_http_only_reads(web: httpx.AsyncClient) -> None:
    for path in ("/api/v1/scores", "/api/v1/scores/summary", "/api/v1/runs/r/scores", "/api/v1/alerts"):
        assert (await web.post(path)).status_code == 405
        head = await web.head(path)
        assert (head.status_code, head.content) == (200, b"")
