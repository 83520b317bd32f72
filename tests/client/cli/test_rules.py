"""`lavant rules`."""

import json
from datetime import timedelta

import pytest

from client.cli.conftest import Lavant
from lavant.client import Alert, AsyncClient, RunState, SampleFilter, ScoreStatistic
from lavant.client.cli.alerts import EXAMPLES, format_alert, parse_alerts


async def test_a_rule_is_created_from_the_options(client: AsyncClient, lavant: Lavant) -> None:
    created = await lavant(
        *("rules", "create", "slow", "--rate", "0.1", "--evaluator", "correctness", "--name", "weather-*"),
        *(
            "--min-duration",
            "30",
            "--state",
            "succeeded",
            "--label",
            "team=weather",
            "--score-label",
            "feeling=neutral",
        ),
        *("--max-attempts", "2", "--paused", "--no-error", "--output-contains", "cold"),
    )
    rule = await client.rules.get("slow")
    assert (created.status, created.out) == (0, f"created slow; its results are in run {rule.evaluation_id}\n")
    assert (rule.sample_rate, rule.paused, rule.max_attempts) == (0.1, True, 2)
    assert ([one.name for one in rule.evaluators], rule.score_labels) == (["correctness"], {"feeling": "neutral"})
    assert rule.filter == SampleFilter(
        names=("weather-*",),
        labels={"team": "weather"},
        states=(RunState.SUCCEEDED,),
        min_duration=timedelta(seconds=30),
        has_error=False,
        output_contains="cold",
    )


@pytest.mark.parametrize(
    ("text", "alert"),
    [
        (EXAMPLES[0], Alert(name="low", score_name="correctness", below=0.8, window=timedelta(hours=1))),
        (
            EXAMPLES[1].partition(" to ")[0],
            Alert(
                name="rude",
                score_name="polite",
                statistic=ScoreStatistic.PASS_RATE,
                below=0.9,
                window=timedelta(minutes=30),
                min_count=20,
            ),
        ),
        (
            EXAMPLES[2],
            Alert(name="broken", statistic=ScoreStatistic.ERROR_RATE, above=0.5, window=timedelta(minutes=10)),
        ),
        ("too sad: mean of mood of day > -0.5 within 90s", None),
        ("few: Pass-Rate of a  <1e-3 within 2d with 1 score", None),
    ],
    ids=["mean", "pass rate", "error rate", "negative", "compact"],
)
async def test_alerts_are_created_as_written(
    client: AsyncClient, lavant: Lavant, text: str, alert: Alert | None
) -> None:
    assert (await lavant("rules", "create", "quality", "--alert", text, "--alert", EXAMPLES[3])).status == 0
    first, second = (await client.rules.get("quality")).alerts
    assert first == (alert or first)
    assert (second.name, second.statistic, second.window) == ("silent", "count", timedelta(days=1))
    assert parse_alerts([format_alert(first)]) == [first]


async def test_an_alert_that_cannot_fire_is_refused(lavant: Lavant) -> None:
    ended = await lavant("rules", "create", "q", "--evaluator", "polite", "--alert", "low: mean of polit < 1 within 1h")
    assert ended.status == 1
    assert "must be one of the scores of the rule's evaluators (polite), not 'polit'" in ended.err


async def test_rules_are_listed_and_shown(client: AsyncClient, lavant: Lavant) -> None:
    low = Alert(name="low", score_name="correctness", below=0.8, window=timedelta(hours=1))
    rule = await client.rules.create("quality", evaluators=["correctness"], alerts=[low])
    assert (await lavant("rules", "list")).out == "quality\tactive\t1\t0\t0\t0\t0\n"
    (line,) = (await lavant("rules", "list", "--json")).out.splitlines()
    assert json.loads(line)["evaluation_id"] == rule.evaluation_id
    shown = (await lavant("rules", "show", "quality")).out.splitlines()
    assert shown == [
        "quality is active",
        "  selects    1 of all agents",
        "  evaluators correctness",
        "  alert      low: mean of correctness below 0.8 within 1h",
        "             cannot fire: rule quality recorded no correctness score in the last 1 h",
        "  progress   0 runs examined, 0 selected, 0 evaluated, 0 failed",
        f"  results    {rule.evaluation_id}",
    ]


async def test_a_rule_is_paused_resumed_and_deleted(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create("quality")
    assert (await lavant("rules", "pause", "quality")).out.startswith("quality is paused\n")
    assert (await client.rules.get("quality")).paused
    assert (await lavant("rules", "resume", "quality")).out.startswith("quality is active\n")
    assert "  backfill   " in (await lavant("rules", "backfill", "quality", "--since", "7d", "--until", "1h")).out
    assert (await lavant("rules", "delete", "quality")).out == "deleted quality\n"
    gone = await lavant("rules", "show", "quality")
    assert (gone.status, "`lavant rules list` lists those that exist" in gone.err) == (1, True)


async def test_wrong_usage_is_reported(lavant: Lavant) -> None:
    for arguments, said in (
        (["create", "r", "--state", "happy"], "--state must be one of"),
        (["create", "r", "--rate", "2"], "--rate"),
        (["create", "r", "--score-label", "x"], "--score-label must be KEY=VALUE"),
        (["backfill", "r", "--until", "soon"], "--until must be like"),
        (["backfill", "r", "--again", "none"], "--again must be one of errors, version, all"),
        (["create", "r", "--alert", "low"], "write it like 'low: mean of correctness below 0.8 within 1h'"),
        (["create", "r", "--alert", "low: p99 of a below 1 within 1h"], "which is none of mean, pass_rate, error_rate"),
        (["create", "r", "--alert", "low: mean below much within 1h"], "has 'much' in place of a number"),
        (["create", "r", "--alert", "low: mean below 1 within 1 week"], "is not NAME: STATISTIC"),
    ):
        ended = await lavant("rules", *arguments)
        assert (ended.status, said in ended.err) == (2, True), ended.err
