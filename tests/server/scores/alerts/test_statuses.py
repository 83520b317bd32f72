"""An alert that cannot fire says so, and why."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from lavant.server.scores.alerts.checks import Alerting
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.statuses import AlertStatuses
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.store.port import Engine
from lavant.v1.event_pb2 import ScoreRecorded
from lavant.v1.rule_pb2 import Alert, AlertObstacle, AlertState, AlertStatus, Rule, RuleProgress, ScoreStatistic
from lavant.v1.run_pb2 import Error
from support.clock import ManualClock
from support.scores import TENANT, Segment, recorded

MEAN, PASS_RATE, ERROR_RATE, COUNT = ScoreStatistic.values()[1:]
Ask = Callable[..., Any]


def alert(name: str, score: str = "quality", **more: Any) -> Alert:
    more = more if {"below", "above"} & set(more) else {"below": 0.8, **more}
    return Alert(name=name, score_name=score, window=Duration(seconds=300), **more)


def words(status: AlertStatus) -> tuple[str, str]:
    """State and obstacle, without their prefixes."""
    state, obstacle = AlertState.Name(status.state), AlertObstacle.Name(status.obstacle)
    return state.removeprefix("ALERT_STATE_"), obstacle.removeprefix("ALERT_OBSTACLE_")


@pytest.fixture
async def logs(engine: Engine, clock: ManualClock) -> AsyncIterator[AlertLogs]:
    opened = AlertLogs(engine, clock, lambda: [TENANT])
    yield opened
    opened.close()


@pytest.fixture
def log(logs: AlertLogs) -> AlertLog:
    return logs.of(TENANT)


@pytest.fixture
def statuses(index: ScoreIndex, follower: Follower, logs: AlertLogs, clock: ManualClock) -> AlertStatuses:
    return AlertStatuses(index, follower, logs, clock)


@pytest.fixture
def alerting(index: ScoreIndex, follower: Follower, logs: AlertLogs, clock: ManualClock) -> Callable[[Rule], Alerting]:
    async def none(tenant: str, rule: Rule) -> list[Rule]:
        return [rule]

    def of(rule: Rule) -> Alerting:
        return Alerting(
            index=index,
            follower=follower,
            clock=clock,
            logs=logs,
            rules_of=lambda tenant: none(tenant, rule),
            allowed=lambda _: True,
        )

    return of


@pytest.mark.parametrize(
    ("one", "scores", "state", "said"),
    [
        pytest.param(alert("a"), [], ("CANNOT_FIRE", "NO_SCORES"), "recorded no quality score in the last 5 min"),
        pytest.param(
            alert("a", "qality"),
            [recorded("quality", 0.1), recorded("polite", True)],
            ("CANNOT_FIRE", "UNKNOWN_SCORE"),
            "no score of rule rule is named qality, only polite, quality",
        ),
        pytest.param(
            alert("a", statistic=PASS_RATE),
            [recorded("quality", 0.1)],
            ("CANNOT_FIRE", "NO_VERDICTS"),
            "the quality scores are no verdicts, and have no pass rate",
        ),
        pytest.param(
            alert("a"),
            [recorded("quality", "rude")],
            ("CANNOT_FIRE", "NO_NUMBERS"),
            "the quality scores are no numbers or verdicts",
        ),
        pytest.param(
            alert("a"),
            [recorded("quality", None), recorded("quality", None)],
            ("CANNOT_FIRE", "EVALUATOR_DOWN"),
            "the evaluators fail: all 2 scores in the last 5 min are errors",
        ),
        pytest.param(
            alert("a", statistic=COUNT, score="qality", above=5),
            [recorded("quality", 0.1)],
            ("CANNOT_FIRE", "UNKNOWN_SCORE"),
            "only quality",
        ),
        pytest.param(alert("a", statistic=COUNT, below=1), [], ("FIRING", "UNSPECIFIED"), "is 0, below 1"),
        pytest.param(alert("a"), [recorded("quality", 0.1)], ("FIRING", "UNSPECIFIED"), "is 0.1, below 0.8"),
        pytest.param(alert("a"), [recorded("quality", 0.9)], ("OK", "UNSPECIFIED"), "is 0.9, not below 0.8"),
        pytest.param(
            alert("a", min_count=3),
            [recorded("quality", 0.1)],
            ("TOO_FEW", "UNSPECIFIED"),
            "1 scores in the last 5 min, fewer than 3",
        ),
        pytest.param(
            alert("a", statistic=PASS_RATE),
            [recorded("quality", True), recorded("quality", None)],
            ("FIRING", "UNSPECIFIED"),
            "the pass rate of quality scores (1 of them failed) of rule rule is 0.5, below 0.8",
        ),
        pytest.param(
            alert("a", statistic=ERROR_RATE, above=0.5),
            [recorded("quality", None)],
            ("FIRING", "UNSPECIFIED"),
            "the error rate of quality scores (1 of them failed) of rule rule is 1, above 0.5",
        ),
    ],
    ids=[
        *("no scores", "unknown score", "pass rate of numbers", "mean of classes", "errors only", "count of nothing"),
        *("silence", "firing", "ok", "too few", "pass rate with a failure", "error rate"),
    ],
)
async def test_states_of_alerts(
    engine: Engine, statuses: AlertStatuses, one: Alert, scores: list[ScoreRecorded], state: tuple[str, str], said: str
) -> None:
    segment = await Segment(engine).begin()
    await segment.add(*scores)
    (status,) = await statuses.of(TENANT, Rule(rule_id="rule", alerts=[one]))
    assert words(status) == state
    assert said in status.message
    assert status.name == "a"
    assert status.HasField("check_time")


async def test_a_judge_of_verdicts_that_only_fails_has_a_pass_rate_of_nothing(
    engine: Engine, statuses: AlertStatuses, clock: ManualClock
) -> None:
    segment = await Segment(engine).begin()
    await segment.add(recorded("quality", True))
    clock.advance(301)
    await segment.add(recorded("quality", None))
    (status,) = await statuses.of(TENANT, Rule(rule_id="rule", alerts=[alert("a", statistic=PASS_RATE)]))
    assert (words(status), status.value, status.count, status.error_count) == (("FIRING", "UNSPECIFIED"), 0.0, 1, 1)


async def test_samples_returned_with_errors_show_that_the_evaluator_is_down(statuses: AlertStatuses) -> None:
    progress = RuleProgress(samples_delayed=5, last_error=Error(type="RuntimeError", message="429 rate limited"))
    (status,) = await statuses.of(TENANT, Rule(rule_id="rule", alerts=[alert("a")], progress=progress))
    assert words(status) == ("CANNOT_FIRE", "EVALUATOR_DOWN")
    assert "5 samples wait for another attempt; last error: RuntimeError: 429 rate limited" in status.message


async def test_a_status_is_of_a_moment_ago_at_most(engine: Engine, statuses: AlertStatuses, clock: ManualClock) -> None:
    rule = Rule(rule_id="rule", alerts=[alert("a")])
    (before,) = await statuses.of(TENANT, rule)
    await (await Segment(engine).begin()).add(recorded("quality", 0.9))
    clock.advance(0.1)
    (after,) = await statuses.of(TENANT, rule)
    assert (words(before)[0], words(after)[0]) == ("CANNOT_FIRE", "OK")


async def test_what_cannot_fire_is_logged_once(
    engine: Engine, alerting: Callable[[Rule], Alerting], clock: ManualClock
) -> None:
    segment = await Segment(engine).begin()
    await segment.add(recorded("quality", None))
    watching = alerting(Rule(rule_id="rule", alerts=[alert("a")]))
    with capture_logs() as logs:
        for _ in range(3):
            await watching.run_once()
            clock.advance(10)
    (entry,) = [entry for entry in logs if entry["event"] == "alert_cannot_fire"]
    assert (entry["log_level"], entry["rule_id"], entry["alert"]) == ("warning", "rule", "a")
    assert "the evaluators fail" in entry["reason"]
    await segment.add(recorded("quality", 0.9))
    with capture_logs() as logs:
        await watching.run_once()
    assert [entry["event"] for entry in logs] == ["alert_can_fire"]
