"""Alerts fire once, stay, and end, whoever looks and whatever dies in between."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.server.model import RunKey
from lavant.server.scores.alerts import log as alert_log
from lavant.server.scores.alerts.checks import Alerting
from lavant.server.scores.alerts.log import ALERTS_RUN, AlertLog
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.thresholds import RecentScores, changed, recent_scores
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.store.port import Engine
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, Rule, ScoreStatistic
from support.clock import ManualClock
from support.engines import stored
from support.scores import TENANT, Segment, recorded

MEAN, PASS_RATE, ERROR_RATE, COUNT = ScoreStatistic.values()[1:]
EMPTY = RecentScores(0, 0, 0.0, 0, 0, 0)


def below(threshold: float = 0.5, *, name: str = "low", window: int = 60, **more: object) -> Alert:
    """An alert of a mean that is too low."""
    return Alert(name=name, below=threshold, window=Duration(seconds=window), **more)  # type: ignore[arg-type]


@dataclass
class Rules:
    """The rules of all tenants."""

    rules: list[Rule] = field(default_factory=list)

    async def of(self, tenant: str) -> Sequence[Rule]:
        return self.rules


@pytest.fixture
def rules() -> Rules:
    return Rules([Rule(rule_id="rule", alerts=[below()])])


@asynccontextmanager
async def watching(
    engine: Engine, index: ScoreIndex, clock: ManualClock, rules: Rules
) -> AsyncIterator[tuple[Alerting, AlertLog]]:
    """Run a server's checks of alerts, each on request."""
    async with AsyncExitStack() as stack:
        follower = await stack.enter_async_context(Follower(engine, index, clock))
        logs = AlertLogs(engine, clock, lambda: [TENANT])
        stack.callback(logs.close)
        yield (
            Alerting(index=index, follower=follower, clock=clock, logs=logs, rules_of=rules.of, allowed=lambda _: True),
            logs.of(TENANT),
        )


@pytest.fixture
async def alerting(engine: Engine, index: ScoreIndex, clock: ManualClock, rules: Rules) -> AsyncIterator[Alerting]:
    async with watching(engine, index, clock, rules) as (alerting, _):
        yield alerting


async def changes(engine: Engine) -> list[AlertChanged]:
    """Return the changes that the log records."""
    events = await stored(engine, RunKey(TENANT, ALERTS_RUN))
    assert [event.WhichOneof("payload") for event in events[:1]] == ["run_started"]
    return [event.alert_changed for event in events[1:]]


async def test_an_alert_fires_once_stays_and_ends(engine: Engine, alerting: Alerting, clock: ManualClock) -> None:
    segment = await Segment(engine).begin()
    await segment.add(recorded(value=0.25), recorded(value=0.5))
    for _ in range(3):
        await alerting.run_once()
    (first,) = await changes(engine)
    assert (first.rule_id, first.alert, first.firing) == ("rule", "low", True)
    assert (first.value, first.threshold, first.count) == (0.375, 0.5, 2)
    assert first.message == "the mean of all scores of rule rule is 0.375, below 0.5"
    clock.advance(61)
    await alerting.run_once()
    assert len(await changes(engine)) == 1  # no scores say nothing
    await segment.add(recorded(value=0.9))
    await alerting.run_once()
    await alerting.run_once()
    _, second = await changes(engine)
    assert (second.firing, second.value, second.count) == (False, 0.9, 1)


async def test_window_that_stays_empty_is_not_queried_until_there_are_new_scores(
    engine: Engine, alerting: Alerting, index: ScoreIndex, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = await Segment(engine).begin()
    await alerting.run_once()
    read, queries = index.read, list[Any]()

    async def counting(function: Any, *arguments: Any, **named: Any) -> Any:
        queries.append(function)
        return await read(function, *arguments, **named)

    monkeypatch.setattr(index, "read", counting)
    for _ in range(3):
        clock.advance(61)
        await alerting.run_once()
    assert recent_scores not in queries
    clock.advance(61)
    await segment.add(recorded(value=0.0))
    await alerting.run_once()
    assert [change.firing for change in await changes(engine)] == [True]


async def test_two_servers_write_each_change_once(
    engine: Engine, index: ScoreIndex, clock: ManualClock, rules: Rules
) -> None:
    segment = await Segment(engine).begin()
    async with watching(engine, index, clock, rules) as (here, _), watching(engine, index, clock, rules) as (there, _):
        for number, value in enumerate([0.0, 1.0, 0.0], 1):
            clock.advance(61)
            await segment.add(recorded(value=value))
            for alerting in (here, there, here):
                await alerting.run_once()
            assert [change.firing for change in await changes(engine)] == [True, False, True][:number]


async def test_who_is_not_first_reads_again(engine: Engine, clock: ManualClock) -> None:
    here, there = AlertLog(engine, clock, TENANT), AlertLog(engine, clock, TENANT)
    first = AlertChanged(rule_id="rule", alert="low", firing=True, value=0.1)
    assert await here.append([(first, False)])
    assert not await AlertLog(engine, clock, TENANT).append([(first, False)])  # the very same, at the same time
    second = AlertChanged(rule_id="rule", alert="low", firing=True, value=0.2)
    assert not await there.append([(second, False)])
    assert there.changes == here.changes == {("rule", "low"): first}
    assert await there.append([(second, True)])
    assert not await here.append([(first, False)])
    assert [delivery.change for delivery in here.deliveries.values()] == [second]


async def test_another_life_knows_what_fires(
    engine: Engine, index: ScoreIndex, clock: ManualClock, rules: Rules
) -> None:
    await (await Segment(engine).begin()).add(recorded(value=0.0))
    for _ in range(2):
        async with watching(engine, index, clock, rules) as (alerting, _):
            await alerting.run_once()
    assert len(await changes(engine)) == 1


async def test_an_alert_that_is_removed_ends_when_it_was_missed_twice(
    engine: Engine, alerting: Alerting, rules: Rules
) -> None:
    await (await Segment(engine).begin()).add(recorded(value=0.0))
    await alerting.run_once()
    kept, rules.rules = rules.rules, []
    await alerting.run_once()
    rules.rules = kept
    await alerting.run_once()
    assert len(await changes(engine)) == 1
    rules.rules = [Rule(rule_id="rule", alerts=[below(name="other", min_count=9)])]
    for _ in range(3):
        await alerting.run_once()
    _, end = await changes(engine)
    assert (end.alert, end.firing, end.message) == ("low", False, "the alert low of rule rule was removed")


async def test_only_scores_of_the_rule_and_name_count(engine: Engine, alerting: Alerting, rules: Rules) -> None:
    rules.rules[0].alerts[0].score_name = "clearness"
    segment = await Segment(engine).begin()
    await segment.add(recorded("correctness", 0.0), recorded("clearness", 0.0, rule_id="other"))
    await segment.add(recorded("clearness", 0.8))
    await alerting.run_once()
    await segment.add(recorded("clearness", 0.1))
    await alerting.run_once()
    (change,) = await changes(engine)
    assert change.value == pytest.approx(0.45)
    assert change.count == 2


async def test_what_counts_is_when_scores_were_recorded(engine: Engine, alerting: Alerting) -> None:
    await (await Segment(engine).begin()).add(recorded(value=0.0, time_ns=1_000_000_000))
    await alerting.run_once()
    assert len(await changes(engine)) == 1


async def test_a_long_window_is_looked_at_less_often(
    engine: Engine, alerting: Alerting, rules: Rules, clock: ManualClock
) -> None:
    rules.rules[0].alerts[0].window.seconds = 36_000
    segment = await Segment(engine).begin()
    await segment.add(recorded(value=1.0))
    await alerting.run_once()
    await segment.add(recorded(value=-9.0))
    clock.advance(80)
    await alerting.run_once()
    rules.rules[0].revision += 1
    await alerting.run_once()
    assert len(await changes(engine)) == 1
    await segment.add(recorded(value=90.0))
    clock.advance(110)
    await alerting.run_once()
    assert len(await changes(engine)) == 2


async def test_a_store_out_of_reach_is_looked_at_again(engine: Engine, alerting: Alerting) -> None:
    await engine.close()
    await alerting.run_once()
    await alerting.run_once()


@pytest.mark.parametrize(
    ("alert", "recent", "firing", "value"),
    [
        pytest.param(below(), EMPTY, False, None, id="nothing"),
        pytest.param(below(), RecentScores(1, 1, 0.5, 0, 0, 0), False, None, id="at the threshold"),
        pytest.param(below(), RecentScores(1, 1, 0.49, 0, 0, 0), False, 0.49, id="below"),
        pytest.param(below(), RecentScores(1, 1, 0.49, 0, 0, 0), True, None, id="still below"),
        pytest.param(below(), RecentScores(1, 1, 0.5, 0, 0, 0), True, 0.5, id="back"),
        pytest.param(below(min_count=2), RecentScores(9, 1, 0.0, 0, 0, 8), False, None, id="too few values"),
        pytest.param(below(min_count=2), RecentScores(2, 2, 0.0, 0, 0, 0), False, 0.0, id="enough"),
        pytest.param(below(min_count=2), RecentScores(1, 1, 1.0, 0, 0, 0), True, None, id="too few to end"),
        pytest.param(below(statistic=PASS_RATE), RecentScores(9, 9, 9.0, 4, 1, 0), False, 0.25, id="pass rate"),
        pytest.param(below(statistic=PASS_RATE), RecentScores(9, 9, 0.0, 0, 0, 0), False, None, id="no verdicts"),
        pytest.param(
            Alert(above=0.1, statistic=ERROR_RATE), RecentScores(4, 2, 1.0, 0, 0, 1), False, 0.25, id="errors"
        ),
        pytest.param(
            Alert(above=0.25, statistic=ERROR_RATE), RecentScores(4, 2, 1.0, 0, 0, 1), False, None, id="few errors"
        ),
        pytest.param(below(1, statistic=COUNT), EMPTY, False, 0.0, id="silence"),
        pytest.param(below(1, statistic=COUNT, min_count=1), EMPTY, False, None, id="silence that does not count"),
        pytest.param(Alert(above=3, statistic=COUNT), RecentScores(4, 0, 0.0, 0, 0, 4), False, 4.0, id="many"),
        pytest.param(Alert(above=0.5, statistic=MEAN), RecentScores(2, 2, 1.2, 0, 0, 0), False, 0.6, id="above"),
    ],
)
def test_when_an_alert_changes(alert: Alert, recent: RecentScores, firing: bool, value: float | None) -> None:
    change = changed("rule", alert, recent, firing=firing)
    assert (change and change.value) == (value if value is None else pytest.approx(value))
    if change is not None:
        assert change.firing is not firing


def test_the_log_is_one_that_the_server_owns() -> None:
    assert alert_log.ALERTS_RUN == "lavant.alerts"
