"""Aggregates equal those of the single scores."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import count
from random import Random
from typing import Any

import pytest

from lavant.server.model import RunKey
from lavant.server.scores.index import intake
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import Found, Intake, Source, take_in
from lavant.server.scores.query import aggregation
from lavant.server.scores.query.aggregation import Grouping, query_scores
from lavant.v1.event_pb2 import Event, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.score_service_pb2 import ScoreFilter, ScoreGroup
from support.engines import refused
from support.scores import DAY_NS, TENANT, Value, recorded, values

HOUR_NS = DAY_NS // 24
MINUTE_NS = HOUR_NS // 60
START_NS = 1_700_000_000_000_000_000 // DAY_NS * DAY_NS
PERCENTILES = (0.1, 25, 50, 90, 99.9)
_sequences = count(1)


def found(scores: Iterable[ScoreRecorded], tenant: str = TENANT) -> Found:
    """Return scores as they are read from a log of their own."""
    events = [Event(sequence=next(_sequences), score_recorded=one) for one in scores]
    return Found(tenant, Source(RunKey(tenant, "lavant.rule.1"), 1), EventBatch(events=events).SerializeToString())


def some_score(random: Random) -> ScoreRecorded:
    """A score of any kind, within four days."""
    said: list[Value] = [random.random(), random.gauss(1e6, 3), random.random() < 0.3, random.choice("abc"), None, -0.0]
    return recorded(
        random.choice(["correctness", "clearness"]),
        random.choice(said),
        rule_id=random.choice(["rule", "other"]),
        run=f"run-{random.randrange(5)}",
        agent=random.choice(["weather", "travel"]),
        time_ns=START_NS + random.choice([random.randrange(4 * DAY_NS), random.randrange(96) * HOUR_NS]),
        labels=random.choice([{}, {"team": "a"}, {"team": "b", "tier": "1"}]),
        evaluator="judge",
        version=random.choice("12"),
    )


@pytest.fixture
async def scores(index: ScoreIndex) -> list[ScoreRecorded]:
    """Two thousand scores in the index, some of them read twice, out of order."""
    random = Random(7)
    made = [some_score(random) for _ in range(2_000)]
    parts = [found(made[start : start + 150]) for start in range(0, len(made), 150)]
    for part in parts:
        await index.write(take_in, Intake(found=[part]))
    await index.write(take_in, Intake(found=parts[:3]))  # a second time
    await index.write(take_in, Intake(found=[found([some_score(random)], "other tenant")]))
    return made


def window(start_ns: int | None, end_ns: int | None) -> ScoreFilter:
    """Return a filter of runs that ended between two points in time."""
    wanted = ScoreFilter()
    if start_ns is not None:
        wanted.subject_ended_after.FromNanoseconds(start_ns)
    if end_ns is not None:
        wanted.subject_ended_before.FromNanoseconds(end_ns)
    return wanted


WINDOWS = {
    "all": window(None, None),
    "whole days": window(START_NS + DAY_NS, START_NS + 3 * DAY_NS),
    "whole hours": window(START_NS + 5 * HOUR_NS, START_NS + 50 * HOUR_NS),
    "within an hour": window(START_NS + HOUR_NS + 1, START_NS + 2 * HOUR_NS - 1),
    "ragged": window(START_NS + 5 * HOUR_NS + 12_345, START_NS + 3 * DAY_NS + 7 * HOUR_NS + 1),
    "from": window(START_NS + 30 * MINUTE_NS, None),
    "until": window(None, START_NS + 2 * DAY_NS + 1),
    "nothing": window(START_NS + DAY_NS, START_NS),
}
BUCKETS = {"none": 0, "day": DAY_NS, "three hours": 3 * HOUR_NS, "week": 7 * DAY_NS, "95 min": 95 * MINUTE_NS}
OTHERS = {
    "rule": ScoreFilter(rule_ids=["rule"]),
    "versions": ScoreFilter(names=["clearness"], versions=["1", "3"], evaluators=["judge", "nobody"]),
    "agent": ScoreFilter(run_names=["travel"]),
    "label": ScoreFilter(labels={"team": "b", "tier": "1"}),
    "run": ScoreFilter(subject_run_id="run-3", rule_ids=["other"]),
}


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("name", WINDOWS)
async def test_windows_and_buckets(index: ScoreIndex, scores: list[ScoreRecorded], name: str, bucket: str) -> None:
    grouping = Grouping(("rule_id", "version"), (), BUCKETS[bucket])
    await check(index, scores, WINDOWS[name], grouping)


@pytest.mark.parametrize("name", OTHERS)
async def test_filters_and_groups(index: ScoreIndex, scores: list[ScoreRecorded], name: str) -> None:
    for grouping in (Grouping(), Grouping(("name", "run_name", "evaluator"), ("team", "tier", "none"), DAY_NS)):
        await check(index, scores, OTHERS[name], grouping)


async def check(index: ScoreIndex, scores: list[ScoreRecorded], wanted: ScoreFilter, grouping: Grouping) -> None:
    """Compare with sums made of the single scores."""
    expected: defaultdict[Any, list[ScoreRecorded]] = defaultdict(list)
    for one in scores:
        if matches(one, wanted):
            time = one.subject_time.ToNanoseconds()
            bucket = time // grouping.bucket_ns * grouping.bucket_ns if grouping.bucket_ns else 0
            expected[bucket, *values_by(one, grouping)].append(one)
    groups = await index.read(query_scores, TENANT, wanted, grouping, PERCENTILES)
    keys = [
        (
            group.start_time.ToNanoseconds(),
            *(getattr(group, name) for name in grouping.dimensions),
            *(group.labels.get(label, "") for label in grouping.labels),
        )
        for group in groups
    ]
    assert keys == sorted(expected)
    for group, key in zip(groups, keys, strict=True):
        check_group(group, expected[key])


def values_by(one: ScoreRecorded, grouping: Grouping) -> tuple[str, ...]:
    """Return the values of a score that a grouping groups by."""
    fields = {
        "rule_id": one.rule_id,
        "name": one.score.name,
        "evaluator": one.score.evaluator.name,
        "version": one.score.evaluator.version,
        "run_name": one.subject_name,
    }
    return *(fields[name] for name in grouping.dimensions), *(one.labels.get(label, "") for label in grouping.labels)


def matches(one: ScoreRecorded, wanted: ScoreFilter) -> bool:
    time, said = one.subject_time.ToNanoseconds(), one.score
    choices = (
        (one.rule_id, wanted.rule_ids),
        (said.name, wanted.names),
        (said.evaluator.name, wanted.evaluators),
        (said.evaluator.version, wanted.versions),
        (one.subject_name, wanted.run_names),
    )
    return (
        all(value in chosen for value, chosen in choices if chosen)
        and all(one.labels.get(key) == value for key, value in wanted.labels.items())
        and (not wanted.subject_run_id or one.subject_run_id == wanted.subject_run_id)
        and (not wanted.HasField("subject_ended_after") or time >= wanted.subject_ended_after.ToNanoseconds())
        and (not wanted.HasField("subject_ended_before") or time < wanted.subject_ended_before.ToNanoseconds())
    )


def check_group(group: ScoreGroup, scores: list[ScoreRecorded]) -> None:
    """Compare with what the standard library makes of the same scores."""
    said = values(scores)
    numbers = [float(value) for value in said if isinstance(value, float | bool)]
    verdicts = [value for value in said if isinstance(value, bool)]
    assert (group.count, group.error_count) == (len(said), said.count(None))
    assert group.HasField("mean") == bool(numbers)
    if numbers:
        assert group.mean == pytest.approx(statistics.fmean(numbers), rel=1e-12, abs=1e-12)
    assert group.HasField("standard_deviation") == (len(numbers) > 1)
    if len(numbers) > 1:
        assert group.standard_deviation == pytest.approx(statistics.stdev(numbers), rel=1e-9, abs=1e-12)
    assert group.HasField("pass_rate") == bool(verdicts)
    if verdicts:
        assert group.pass_rate == pytest.approx(sum(verdicts) / len(verdicts))
    ranked = sorted(float(f"{number:.2e}") for number in numbers)
    ranks = [max(1, math.ceil(rank * len(ranked) / 100)) for rank in PERCENTILES]
    assert list(group.percentiles) == [ranked[rank - 1] for rank in ranks if ranked]
    assert dict(group.label_counts) == Counter(value for value in said if isinstance(value, str))


async def test_values_that_are_large_and_alike_keep_their_digits(index: ScoreIndex) -> None:
    numbers = [1e6 + number / 1000 for number in range(1_000)]
    for number in numbers:
        await index.write(take_in, Intake(found=[found([recorded(value=number)])]))
    (group,) = await index.read(query_scores, TENANT, ScoreFilter(), Grouping(), ())
    assert group.standard_deviation == pytest.approx(statistics.stdev(numbers), rel=1e-6)


async def test_the_largest_numbers_do_no_harm(index: ScoreIndex) -> None:
    await index.write(
        take_in, Intake(found=[found([recorded(value=value) for value in (1.7e308, 1.7e308, -1.7e308, 0.0)])])
    )
    (group,) = await index.read(query_scores, TENANT, ScoreFilter(), Grouping(), (50, 99))
    assert group.count == 4
    assert math.isfinite(group.mean)
    assert math.isfinite(group.standard_deviation)
    assert list(group.percentiles) == [0.0, 1e100]


async def test_the_most_frequent_classes_are_returned(index: ScoreIndex) -> None:
    many = [recorded(value=f"class {number:03}") for number in range(150) for _ in range(1 + number // 75)]
    await index.write(take_in, Intake(found=[found(many)]))
    (group,) = await index.read(query_scores, TENANT, ScoreFilter(), Grouping(), ())
    assert group.count == len(many)
    assert len(group.label_counts) == 100
    assert sum(group.label_counts.values()) == 2 * 75 + 25


@pytest.mark.parametrize("bucket_ns", [DAY_NS, MINUTE_NS], ids=["days", "minutes"])
async def test_too_many_groups_are_refused(index: ScoreIndex, bucket_ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "MAX_GROUPS", 3)
    await index.write(take_in, Intake(found=[found([recorded(time_ns=START_NS + n * DAY_NS) for n in range(4)])]))
    with refused("INVALID_FIELD") as refusal:
        await index.read(query_scores, TENANT, ScoreFilter(), Grouping((), (), bucket_ns), ())
    assert refusal.value.violations[0].path == "bucket"


async def test_too_many_single_scores_are_refused(index: ScoreIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "_MAX_SINGLE", 3)
    await index.write(take_in, Intake(found=[found([recorded(time_ns=START_NS + n * DAY_NS) for n in range(4)])]))
    with refused("INVALID_FIELD") as refusal:
        await index.read(query_scores, TENANT, ScoreFilter(), Grouping((), (), MINUTE_NS), ())
    assert refusal.value.violations[0].path == "filter"
    assert (
        len(await index.read(query_scores, TENANT, ScoreFilter(), Grouping((), (), intake.HOUR * 1_000_000_000), ()))
        == 4
    )
