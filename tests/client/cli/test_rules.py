"""`lavant rules`."""

import json
from datetime import timedelta

from client.cli.conftest import Lavant
from lavant.client import Alert, AsyncClient, RunState, SampleFilter


async def test_a_rule_is_created_as_told(client: AsyncClient, lavant: Lavant) -> None:
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
    assert (created.status, created.out) == (0, f"slow is created: its results go to {rule.evaluation_id}\n")
    assert (rule.sample_rate, rule.enabled, rule.max_attempts) == (0.1, False, 2)
    assert ([one.name for one in rule.evaluators], rule.score_labels) == (["correctness"], {"feeling": "neutral"})
    assert rule.filter == SampleFilter(
        names=("weather-*",),
        labels={"team": "weather"},
        states=(RunState.SUCCEEDED,),
        min_duration=timedelta(seconds=30),
        has_error=False,
        output_contains="cold",
    )


async def test_rules_are_listed_and_shown(client: AsyncClient, lavant: Lavant) -> None:
    low = Alert(name="low", score_name="correctness", below=0.8, window=timedelta(hours=1))
    rule = await client.rules.create("quality", evaluators=["correctness"], alerts=[low])
    assert (await lavant("rules", "list")).out == "quality\tenabled\t1\t0\t0\t0\t0\n"
    (line,) = (await lavant("rules", "list", "--json")).out.splitlines()
    assert json.loads(line)["evaluation_id"] == rule.evaluation_id
    shown = (await lavant("rules", "show", "quality")).out.splitlines()
    assert shown == [
        "quality is enabled",
        "  draws      1 of all agents",
        "  judged by  correctness",
        "  alert      low: mean of correctness below 0.8 within 1 h 00 m",
        "  progress   0 runs seen, 0 drawn, 0 judged, 0 failed",
        f"  results    {rule.evaluation_id}",
    ]


async def test_a_rule_is_paused_resumed_and_deleted(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create("quality")
    assert (await lavant("rules", "pause", "quality")).out.startswith("quality is paused\n")
    assert not (await client.rules.get("quality")).enabled
    assert (await lavant("rules", "resume", "quality")).out.startswith("quality is enabled\n")
    assert "  backfill   " in (await lavant("rules", "backfill", "quality", "--since", "7d", "--until", "1h")).out
    assert (await lavant("rules", "delete", "quality")).out == "quality is deleted\n"
    gone = await lavant("rules", "show", "quality")
    assert (gone.status, "`lavant rules list` lists those that exist" in gone.err) == (1, True)


async def test_wrong_usage_is_told(lavant: Lavant) -> None:
    for arguments, said in (
        (["create", "r", "--state", "happy"], "--state must be one of"),
        (["create", "r", "--rate", "2"], "--rate"),
        (["create", "r", "--score-label", "x"], "--score-label must be KEY=VALUE"),
        (["backfill", "r", "--until", "soon"], "--until must be like"),
    ):
        ended = await lavant("rules", *arguments)
        assert (ended.status, said in ended.err) == (2, True), ended.err
