"""Failures count: as not passed where evaluators return verdicts, beside the mean where they return numbers."""

from itertools import count

import pytest

from lavant.server.model import RunKey
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import Found, Intake, Source, take_in
from lavant.server.scores.index.tally import Kind, Tally
from lavant.server.scores.query.aggregation import Group, Grouping, aggregate, query_scores
from lavant.server.scores.query.comparison import compare
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.score_service_pb2 import ScoreFilter, ScoreGroup, ScoreTrend
from support.scores import DAY_NS, TENANT, Value, recorded

_sequences = count(1)
REGRESSED, UNCHANGED, TOO_FEW = (
    ScoreTrend.SCORE_TREND_REGRESSED,
    ScoreTrend.SCORE_TREND_UNCHANGED,
    ScoreTrend.SCORE_TREND_TOO_FEW,
)


async def add(index: ScoreIndex, name: str, *said: Value, day: int = 0, version: str = "1") -> None:
    """Record scores of a name, in order; None is a failure."""
    scores = [recorded(name, value, time_ns=(20_000 + day) * DAY_NS, evaluator="e", version=version) for value in said]
    events = [Event(sequence=next(_sequences), score_recorded=one) for one in scores]
    source = Source(RunKey(TENANT, "lavant.rule.1"), 1)
    await index.write(take_in, Intake(found=[Found(TENANT, source, EventBatch(events=events).SerializeToString())]))


async def groups(index: ScoreIndex, *by: str, bucket_ns: int = 0) -> list[ScoreGroup]:
    return await index.read(query_scores, TENANT, ScoreFilter(), Grouping(by, (), bucket_ns), [50])


async def test_a_failed_verdict_counts_as_not_passed(index: ScoreIndex) -> None:
    await add(index, "polite", True, *[None] * 9)
    (group,) = await groups(index, "name")
    assert (group.count, group.error_count, group.error_rate) == (10, 9, 0.9)
    assert group.pass_rate == 0.1
    assert group.mean == pytest.approx(0.1)
    assert list(group.percentiles) == [0.0]
    assert group.standard_deviation == pytest.approx(0.316, abs=0.001)


async def test_a_failed_number_stands_beside_the_mean(index: ScoreIndex) -> None:
    await add(index, "quality", 0.5, 1.0, None, None)
    (group,) = await groups(index, "name")
    assert (group.count, group.error_count, group.error_rate, group.mean) == (4, 2, 0.5, 0.75)
    assert not group.HasField("pass_rate")


async def test_failures_count_by_their_name_where_groups_hold_several(index: ScoreIndex) -> None:
    await add(index, "polite", True, True, None)
    await add(index, "quality", 0.5, None, None)
    (group,) = await groups(index)
    assert (group.count, group.error_count) == (6, 3)
    assert group.pass_rate == pytest.approx(2 / 3)
    assert group.mean == pytest.approx(2.5 / 4)


async def test_a_day_of_failures_alone_is_a_day_of_verdicts_that_did_not_pass(index: ScoreIndex) -> None:
    await add(index, "polite", True, day=0)
    await add(index, "polite", None, None, day=1)
    first, second = await groups(index, bucket_ns=DAY_NS)
    assert (first.pass_rate, first.error_rate) == (1.0, 0.0)
    assert (second.HasField("pass_rate"), second.pass_rate, second.error_rate) == (True, 0.0, 1.0)


async def test_failures_alone_have_an_error_rate_alone(index: ScoreIndex) -> None:
    await add(index, "polite", None, None)
    (group,) = await groups(index, "name")
    assert (group.count, group.error_count, group.error_rate) == (2, 2, 1.0)
    assert not group.HasField("mean")
    assert not group.HasField("pass_rate")


async def test_an_evaluator_that_fails_more_often_regressed(index: ScoreIndex) -> None:
    await add(index, "quality", *[0.5, 0.6] * 20, version="1")
    await add(index, "quality", *[None] * 40, version="2")
    by_name = Grouping(("name",))
    before = await index.read(aggregate, TENANT, ScoreFilter(versions=["1"]), by_name)
    after = await index.read(aggregate, TENANT, ScoreFilter(versions=["2"]), by_name)
    (change,) = compare(before, after, min_count=30, confidence=0.95)
    assert (change.trend, change.error_trend) == (TOO_FEW, REGRESSED)
    assert (change.baseline_error_count, change.candidate_error_count) == (0, 40)
    assert (change.baseline_error_rate, change.candidate_error_rate) == (0.0, 1.0)
    assert (change.candidate_count, change.HasField("candidate_mean")) == (0, False)


@pytest.mark.parametrize(
    ("before", "after", "trend"),
    [
        ((40, 0), (40, 0), UNCHANGED),
        ((40, 4), (40, 6), UNCHANGED),
        ((40, 4), (10, 30), REGRESSED),
        ((9, 0), (0, 9), TOO_FEW),
    ],
    ids=["none", "by chance", "more", "too few"],
)
def test_when_an_error_rate_regressed(
    before: tuple[int, int], after: tuple[int, int], trend: "ScoreTrend.ValueType"
) -> None:
    sides = []
    for scored, failed in (before, after):
        tally = Tally()
        tally.add_all([(Kind.NUMBER, 1.0, "")] * scored + [(Kind.ERROR, None, "")] * failed)
        sides.append([Group(0, ("quality",), tally)])
    (change,) = compare(*sides, min_count=30, confidence=0.95)
    assert change.error_trend == trend


async def test_only_names_of_verdicts_alone_have_failures_that_did_not_pass(index: ScoreIndex) -> None:
    await add(index, "mixed", True, 0.5, None)
    (group,) = await groups(index, "name")
    assert (group.pass_rate, group.mean, group.error_count) == (1.0, 0.75, 1)
