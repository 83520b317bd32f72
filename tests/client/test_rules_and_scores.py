"""Rules and scores as people read and write them."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from lavant.client import (
    Alert,
    AsyncClient,
    Client,
    EvaluatorInfo,
    RecordedScore,
    Rule,
    RuleChanged,
    RunState,
    SampleFilter,
    ScoreChange,
    ScoreFilter,
    ScoreGroup,
    ScoreStatistic,
    ScoreTrend,
)
from lavant.client.rules import evaluator_infos
from lavant.v1 import event_pb2, score_service_pb2
from support.sampled import Cold

LOW = Alert(name="low", score_name="correctness", below=0.0, window=timedelta(minutes=90), min_count=3)
MANY = Alert(
    name="many", statistic=ScoreStatistic.ERROR_RATE, above=0.5, window=timedelta(days=1), webhook_url="https://x"
)
FULL = Rule(
    id="quality",
    filter=SampleFilter(
        names=("weather-*",),
        labels={"team": "w"},
        states=(RunState.FAILED, RunState.TIMED_OUT),
        min_duration=timedelta(milliseconds=2300),
        max_duration=timedelta(hours=1),
        min_tokens=0,
        max_tokens=10,
        has_error=False,
        input_contains="a",
        output_contains="b",
    ),
    sample_rate=0.0,
    salt="s",
    evaluators=(EvaluatorInfo(name="correctness", version="2", config={"model": "m"}),),
    score_labels={"feeling": "neutral"},
    paused=True,
    max_attempts=2,
    alerts=(LOW, MANY),
    revision=7,
)


def test_a_rule_is_read_as_it_was_written() -> None:
    assert Rule.from_proto(FULL.to_proto()) == FULL
    assert Rule.from_proto(Rule(id="r").to_proto()) == Rule(id="r")


async def test_rules_update_changes_what_is_given_alone(client: AsyncClient) -> None:
    created = await client.rules.create("quality", sample_rate=0.5, salt="s", names=["weather-*"])
    changed = await client.rules.update(created, sample_rate=0.0, salt="", alerts=[LOW], evaluators=FULL.evaluators)
    assert (changed.sample_rate, changed.salt, changed.alerts) == (0.0, "", (LOW,))
    assert (changed.evaluators, changed.filter) == (FULL.evaluators, created.filter)
    assert changed == await client.rules.get("quality")
    # As if the first response had been lost.
    again = await client.rules.update(created, sample_rate=0.0, salt="", alerts=[LOW], evaluators=FULL.evaluators)
    assert again == changed
    with pytest.raises(RuleChanged):
        await client.rules.update(created, paused=True)
    filtered = await client.rules.update("quality", matching=SampleFilter(has_error=True), paused=True)
    assert (filtered.filter, filtered.paused) == (SampleFilter(has_error=True), True)
    assert not (await client.rules.update("quality", paused=False)).paused


def test_an_alert_has_one_threshold() -> None:
    with pytest.raises(ValidationError, match="one of them"):
        Alert(name="low", window=timedelta(hours=1))
    with pytest.raises(ValidationError, match="one of them"):
        Alert(name="low", window=timedelta(hours=1), below=1, above=2)


def test_evaluators_are_accepted_in_any_form() -> None:
    named = EvaluatorInfo(name="polite", version="1")
    assert [one.name for one in evaluator_infos(["correctness", named, Cold()])] == ["correctness", "polite", "Cold"]
    with pytest.raises(ValueError, match="several words"):
        evaluator_infos("correctness")


async def test_invalid_arguments_raise() -> None:
    async with AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(ValueError, match="states must be one of"):
            await client.rules.create("quality", states=["happy"])
        with pytest.raises(ValueError, match="names must be several words"):
            await client.rules.create("quality", names="weather")
        with pytest.raises(ValueError, match="min_duration must be a number of seconds"):
            await client.rules.create("quality", min_duration=-1)
        with pytest.raises(ValueError, match="by must be one of rule, name"):
            await client.scores.query(by=["weather"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="names must be several words"):
            client.scores.list(names="correctness")
        with pytest.raises(TypeError, match="value must be a number"):
            await client.runs.score("run", name="helpful", value=None)  # type: ignore[arg-type]


def test_a_recorded_score_is_read() -> None:
    proto = event_pb2.ScoreRecorded(
        subject_run_id="r", score=event_pb2.Score(name="tone", label="polite"), subject_name="agent", labels={"a": "b"}
    )
    proto.subject_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    assert RecordedScore.from_proto(proto) == RecordedScore(
        name="tone",
        value="polite",
        run_id="r",
        run_name="agent",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        labels={"a": "b"},
    )


def test_what_a_group_does_not_have_is_none() -> None:
    group = ScoreGroup.from_proto(score_service_pb2.ScoreGroup(count=2, error_count=2), percentiles=[50, 90])
    assert (group.mean, group.standard_deviation, group.pass_rate, group.percentiles) == (None, None, None, {})
    full = score_service_pb2.ScoreGroup(count=2, mean=0, pass_rate=0, percentiles=[0.1, 0.2])
    read = ScoreGroup.from_proto(full, percentiles=[50, 90])
    assert (read.mean, read.pass_rate, read.percentiles) == (0, 0, {50: 0.1, 90: 0.2})


def test_what_a_change_does_not_have_is_none() -> None:
    trend = score_service_pb2.SCORE_TREND_REGRESSED
    proto = score_service_pb2.ScoreChange(name="n", candidate_count=3, candidate_mean=0, trend=trend)
    change = ScoreChange.from_proto(proto)
    assert (change.baseline_mean, change.candidate_mean, change.difference) == (None, 0, None)
    assert change.trend is ScoreTrend.REGRESSED


def test_a_score_filter_is_written() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    written = ScoreFilter(rules=["r"], names=["n"], run_id="run", labels={"a": "b"}, ended_after=since).to_proto()
    assert ([*written.rule_ids], [*written.names], written.subject_run_id) == (["r"], ["n"], "run")
    assert written.subject_ended_after.ToDatetime(tzinfo=UTC) == since
    assert not written.HasField("subject_ended_before")


async def test_the_blocking_client_does_not_judge_in_an_event_loop() -> None:
    with Client("127.0.0.1:9") as client, pytest.raises(RuntimeError, match="await AsyncClient's"):
        client.evaluations.process_stream("quality", evaluators=[Cold()])
