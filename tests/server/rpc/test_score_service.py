"""Scores are recorded, listed and added up, whichever engine keeps them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1 import score_service_pb2 as pb
from lavant.v1.event_pb2 import Evaluator, Score, ScoreRecorded
from lavant.v1.run_pb2 import Error
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.calls import create, ended_run, get, until
from support.nats import fresh_location, without_streams
from support.scores import Value, record, score, scores_of, values
from support.server import Server, Stubs, serving
from support.status import refused


@pytest.fixture(params=["file", "nats"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Stubs, Stubs]]:
    """Two servers that share a store, or one server twice."""
    async with AsyncExitStack() as stack:
        if request.param == "file":
            server = await stack.enter_async_context(serving(tmp_path))
            yield server.stubs, server.stubs
        else:
            location = fresh_location([request.getfixturevalue("nats")])
            await stack.enter_async_context(without_streams(location))
            servers = [await stack.enter_async_context(serving(tmp_path, store=str(location))) for _ in range(2)]
            yield servers[0].stubs, servers[1].stubs


async def queried(stubs: Stubs, **fields: Any) -> list[pb.ScoreGroup]:
    return list((await stubs.scores.QueryScores(pb.QueryScoresRequest(**fields))).groups)


async def test_a_score_is_recorded_once_and_found_at_once(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await ended_run(here)
    said = score("helpful", 0.5, evaluator="ann")
    said.explanation = "It was\nclose."
    assert not await record(here, "one", said, labels={"team": "a"})
    (found,) = await scores_of(here)
    assert (found.subject_run_id, found.subject_name, found.rule_id) == ("run", "weather", "")
    assert (found.score, dict(found.labels)) == (said, {"team": "a"})
    assert found.subject_time == (await get(here)).end_time
    assert await record(there, "one", said, labels={"team": "a"})
    assert len(await scores_of(here)) == 1

    async def found_there() -> bool:
        return await scores_of(there) == [found]

    await until(found_there)


async def test_another_score_needs_another_id(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await ended_run(here)
    await ended_run(here, "other")
    await record(here, "one", score(value=True), labels={"a": "b"})
    changes: list[dict[str, Any]] = [{"said": score(value=False)}, {"run_id": "other"}, {"labels": {}}]
    for changed in changes:
        with refused("INVALID_FIELD", "score_id"):
            await record(there, "one", **{"said": score(value=True), "labels": {"a": "b"}, **changed})


async def test_the_same_score_of_a_run_that_has_ended_since_is_the_same(pair: tuple[Stubs, Stubs]) -> None:
    here, _ = pair
    await create(here)
    assert not await record(here, "one")
    (found,) = await scores_of(here)
    assert found.HasField("subject_time")
    await ended_run(here)
    assert await record(here, "one")
    assert await scores_of(here) == [found]


async def test_a_score_needs_its_run(pair: tuple[Stubs, Stubs]) -> None:
    with refused("RUN_NOT_FOUND"):
        await record(pair[0])
    assert await scores_of(pair[0]) == []


async def test_runs_of_scores_are_in_no_list_of_runs(pair: tuple[Stubs, Stubs]) -> None:
    here, _ = pair
    await ended_run(here)
    await record(here)
    assert [run.run_id for run in (await here.runs.ListRuns(ListRunsRequest())).runs] == ["run"]


async def test_scores_add_up_by_name_and_over_time(pair: tuple[Stubs, Stubs]) -> None:
    here, _ = pair
    await ended_run(here)
    said: list[Value] = [0.25, 0.75, True, False, True, "warm", "warm", "cold"]
    for number, value in enumerate(said):
        name = {float: "correctness", bool: "polite", str: "mood"}[type(value)]
        await record(pair[number % 2], str(number), score(name, value))

    async def complete() -> bool:
        return all([len(await scores_of(stubs)) == 8 for stubs in pair])

    await until(complete)
    for stubs in pair:
        groups = await queried(stubs, group_by=[pb.SCORE_DIMENSION_NAME], bucket=Duration(seconds=86_400))
        assert [(group.name, group.count, group.error_count) for group in groups] == [
            ("correctness", 2, 0),
            ("mood", 3, 0),
            ("polite", 3, 0),
        ]
        correctness, mood, polite = groups
        assert (correctness.mean, correctness.HasField("pass_rate")) == (0.5, False)
        assert list(correctness.percentiles) == [0.25, 0.75, 0.75, 0.75]
        assert dict(mood.label_counts) == {"warm": 2, "cold": 1}
        assert (mood.HasField("mean"), list(mood.percentiles)) == (False, [])
        assert (polite.mean, polite.pass_rate) == pytest.approx((2 / 3, 2 / 3))
        end = (await get(here)).end_time
        assert {group.start_time.seconds for group in groups} == {end.seconds // 86_400 * 86_400}


async def test_pages_hold_every_score_once_on_either_server(pair: tuple[Stubs, Stubs]) -> None:
    here, there = pair
    await ended_run(here, "a")
    await ended_run(here, "b")
    for number in range(20):
        await record(here, str(number), score(value=float(number)), run_id="ab"[number % 2])

    async def complete() -> bool:
        return all([len(await scores_of(stubs)) == 20 for stubs in pair])

    await until(complete)
    whole = await scores_of(here)
    assert [told.subject_run_id for told in whole] == ["b"] * 10 + ["a"] * 10
    assert await scores_of(there) == whole
    assert sorted(values(whole)) == list(range(20))
    found: list[ScoreRecorded] = []
    token = ""
    for number in range(7):
        request = pb.ListScoresRequest(page_size=3, page_token=token)
        page = await pair[number % 2].scores.ListScores(request)
        found += page.scores
        token = page.next_page_token
    assert found == whole
    assert await scores_of(there, 3, subject_run_id="a") == whole[10:]


async def test_a_restart_finds_what_was_recorded(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await ended_run(server.stubs)
        await record(server.stubs, "one")
    async with serving(tmp_path) as server:
        assert len(await scores_of(server.stubs)) == 1
        await record(server.stubs, "two")
        assert len(await scores_of(server.stubs)) == 2
    (tmp_path / "lavant.db.scores").unlink()
    async with serving(tmp_path) as server:
        assert len(await scores_of(server.stubs)) == 2


async def test_a_change_is_distinguished_from_chance(server: Server) -> None:
    await ended_run(server.stubs)
    for number in range(4):
        for version, means in {"1": (0.1, 0.2, 0.3, 0.2), "2": (0.8, 0.9, 0.7, 0.8)}.items():
            said = score("better", means[number], evaluator="judge", version=version)
            await record(server.stubs, f"{version}-{number}", said)
    request = pb.CompareScoresRequest(
        baseline=pb.ScoreFilter(versions=["1"]), candidate=pb.ScoreFilter(versions=["2"]), min_count=4
    )
    (change,) = (await server.stubs.scores.CompareScores(request)).changes
    assert (change.name, change.baseline_count, change.candidate_count) == ("better", 4, 4)
    assert change.difference == pytest.approx(0.6)
    assert change.trend == pb.SCORE_TREND_IMPROVED
    request.ClearField("min_count")
    (change,) = (await server.stubs.scores.CompareScores(request)).changes
    assert change.trend == pb.SCORE_TREND_TOO_FEW
    assert not change.HasField("difference_low")


@pytest.mark.parametrize(
    ("candidate", "trend"),
    [
        ((0.3, 0.4, 0.2, 0.3), pb.SCORE_TREND_REGRESSED),
        ((0.9, 0.7, 0.8, 0.8), pb.SCORE_TREND_UNCHANGED),
        ((0.1, 1.0, 0.4, 0.9), pb.SCORE_TREND_UNCHANGED),
    ],
    ids=["regressed", "the-same", "by-chance"],
)
async def test_the_trend_of_a_change(
    server: Server, candidate: tuple[float, ...], trend: "pb.ScoreTrend.ValueType"
) -> None:
    await ended_run(server.stubs)
    for version, said in {"1": (0.8, 0.9, 0.7, 0.8), "2": candidate}.items():
        for number, value in enumerate(said):
            await record(server.stubs, f"{version}-{number}", score(value=value, evaluator="judge", version=version))
    request = pb.CompareScoresRequest(
        baseline=pb.ScoreFilter(versions=["1"]), candidate=pb.ScoreFilter(versions=["2"]), min_count=4
    )
    (change,) = (await server.stubs.scores.CompareScores(request)).changes
    assert change.trend == trend
    assert change.difference_low <= change.difference <= change.difference_high
    assert (change.difference_low <= 0 <= change.difference_high) == (trend == pb.SCORE_TREND_UNCHANGED)


async def test_a_lower_score_improves_where_lower_is_better(server: Server) -> None:
    await ended_run(server.stubs)
    for number in range(4):
        for version, value, direction in (("1", 10.0 + number, None), ("2", 1.0 + number, False)):
            said = score("latency", value, evaluator="clock", version=version)
            if direction is not None:
                said.higher_is_better = direction
            await record(server.stubs, f"{version}-{number}", said)
    old, new = pb.ScoreFilter(versions=["1"]), pb.ScoreFilter(versions=["2"])
    for baseline, candidate, trend in ((old, new, pb.SCORE_TREND_IMPROVED), (new, old, pb.SCORE_TREND_REGRESSED)):
        request = pb.CompareScoresRequest(baseline=baseline, candidate=candidate, min_count=4)
        (change,) = (await server.stubs.scores.CompareScores(request)).changes
        assert (change.trend, change.HasField("higher_is_better"), change.higher_is_better) == (trend, True, False)
        assert (change.difference > 0) == (change.candidate_mean > change.baseline_mean)


def recording(**fields: Any) -> pb.RecordScoreRequest:
    """A request to record a score of the run named "run"."""
    return pb.RecordScoreRequest(**{"score_id": "s", "run_id": "run", "score": score(), **fields})


BAD: dict[str, tuple[Any, str]] = {
    "no score id": (recording(score_id=""), "score_id"),
    "score id": (recording(score_id="a/b"), "score_id"),
    "no run": (recording(run_id=""), "run_id"),
    "no name": (recording(score=score("")), "score.name"),
    "name": (recording(score=score("a\nb")), "score.name"),
    "no value": (recording(score=Score(name="a")), "score"),
    "nan": (recording(score=score(value=float("nan"))), "score.number"),
    "infinite": (recording(score=score(value=float("inf"))), "score.number"),
    "no class": (recording(score=score(value="")), "score.label"),
    "error": (recording(score=Score(name="a", number=1, error=Error(message="x"))), "score.error"),
    "long explanation": (recording(score=Score(name="a", number=1, explanation="x" * 8_193)), "score.explanation"),
    "evaluator": (
        recording(score=Score(name="a", number=1, evaluator=Evaluator(name="x" * 257))),
        "score.evaluator.name",
    ),
    "config": (
        recording(score=Score(name="a", number=1, evaluator=Evaluator(config_json="{"))),
        "score.evaluator.config_json",
    ),
    "large": (
        recording(score=Score(name="a", number=1, evaluator=Evaluator(config_json=f'"{"x" * 65_536}"'))),
        "score",
    ),
    "labels": (recording(labels={str(number): "" for number in range(17)}), "labels"),
    "label": (recording(labels={"": "a"}), "labels"),
    "page size": (pb.ListScoresRequest(page_size=1_001), "page_size"),
    "page token": (pb.ListScoresRequest(page_token="forged"), "page_token"),
    "many rules": (pb.ListScoresRequest(filter=pb.ScoreFilter(rule_ids=["a"] * 101)), "filter.rule_ids"),
    "long name": (pb.ListScoresRequest(filter=pb.ScoreFilter(names=["a", "b" * 1_025])), "filter.names[1]"),
    "time": (
        pb.ListScoresRequest(filter=pb.ScoreFilter(subject_ended_after=Timestamp(nanos=-1))),
        "filter.subject_ended_after",
    ),
    "far time": (
        pb.QueryScoresRequest(filter=pb.ScoreFilter(subject_ended_before=Timestamp(seconds=1 << 40))),
        "filter.subject_ended_before",
    ),
    "dimension": (
        pb.QueryScoresRequest(group_by=[pb.SCORE_DIMENSION_NAME, pb.SCORE_DIMENSION_UNSPECIFIED]),
        "group_by[1]",
    ),
    "unknown dimension": (pb.QueryScoresRequest(group_by=[99]), "group_by[0]"),  # type: ignore[list-item]
    "group labels": (pb.QueryScoresRequest(group_by_labels=list("abcde")), "group_by_labels"),
    "group label": (pb.QueryScoresRequest(group_by_labels=[""]), "group_by_labels[0]"),
    "short bucket": (pb.QueryScoresRequest(bucket=Duration(seconds=59)), "bucket"),
    "negative bucket": (pb.QueryScoresRequest(bucket=Duration(seconds=-60)), "bucket"),
    "odd bucket": (pb.QueryScoresRequest(bucket=Duration(seconds=60, nanos=-1)), "bucket"),
    "huge bucket": (pb.QueryScoresRequest(bucket=Duration(seconds=1 << 40)), "bucket"),
    "percentile 0": (pb.QueryScoresRequest(percentiles=[0]), "percentiles[0]"),
    "percentile 100": (pb.QueryScoresRequest(percentiles=[50, 100]), "percentiles[1]"),
    "percentile nan": (pb.QueryScoresRequest(percentiles=[float("nan")]), "percentiles[0]"),
    "percentiles": (pb.QueryScoresRequest(percentiles=[50] * 21), "percentiles"),
    "baseline": (
        pb.CompareScoresRequest(baseline=pb.ScoreFilter(subject_run_id="\0")),
        "baseline.subject_run_id",
    ),
    "candidate": (
        pb.CompareScoresRequest(candidate=pb.ScoreFilter(labels={"": "x"})),
        "candidate.labels",
    ),
    "min count": (pb.CompareScoresRequest(min_count=-1), "min_count"),
    "no confidence": (pb.CompareScoresRequest(confidence=0.5), "confidence"),
    "full confidence": (pb.CompareScoresRequest(confidence=1), "confidence"),
    "confidence nan": (pb.CompareScoresRequest(confidence=float("nan")), "confidence"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_request_that_breaks_a_rule_is_answered_with_it(server: Server, name: str) -> None:
    await create(server.stubs)
    request, path = BAD[name]
    method = type(request).__name__.removesuffix("Request")
    with refused("INVALID_FIELD", path):
        await getattr(server.stubs.scores, method)(request)


async def test_a_server_that_posts_alerts_starts_and_stops(tmp_path: Path) -> None:
    async with serving(tmp_path, webhooks=["http://127.0.0.1:1/hooks/"]) as server:
        await ended_run(server.stubs)
        assert not await record(server.stubs)
