"""`lavant score` and `lavant scores`."""

import json

import pytest

from client.cli.conftest import Lavant
from lavant.client import AsyncClient
from support.sampled import finish_runs


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("0.5", 0.5), ("-3", -3.0), ("-.5", -0.5), ("-1e-3", -0.001), ("polite", "polite")],
    ids=["true", "number", "negative", "negative part", "negative exponent", "class"],
)
async def test_a_score_is_recorded(client: AsyncClient, lavant: Lavant, text: str, value: object) -> None:
    await finish_runs(client, ["a"])
    told = ("score", "a", "tone", text, "--by", "ada", "--explanation", "heard it", "--label", "team=w", "--id", "s")
    assert (await lavant(*told)).out == "s\n"
    assert (await lavant(*told)).out == "s\n"
    [score] = [score async for score in client.runs.scores("a")]
    assert (score.name, score.value, score.evaluator, score.explanation) == ("tone", value, "ada", "heard it")
    assert score.labels == {"team": "w"}
    assert (await lavant("score", "nowhere", "tone", "1")).status == 1


async def test_an_option_that_does_not_exist_is_refused_beside_a_negative_number(lavant: Lavant) -> None:
    ended = await lavant("score", "a", "tone", "-3", "--explain", "x")
    assert (ended.status, "--explain" in ended.err) == (2, True)
    assert "No such option: --by-whom" in (await lavant("score", "a", "tone", "3", "--by-whom", "x")).err


async def test_scores_are_listed(client: AsyncClient, lavant: Lavant) -> None:
    await finish_runs(client, ["a", "b"])
    await client.runs.score("a", name="tone", value="polite", evaluator="ada")
    await client.runs.score("b", name="correct", value=True, explanation="right\n\x1b[31m", labels={"team": "w"})
    lines = [line.split("\t") for line in (await lavant("scores")).out.splitlines()]
    assert [line[1:] for line in lines] == [
        ["b", "weather", "", "", "correct=true", "right \N{REPLACEMENT CHARACTER}[31m"],
        ["a", "weather", "", "ada", "tone=polite", ""],
    ]
    for flags in (["--name", "tone"], ["--run", "a"], ["--evaluator", "ada"], ["--limit", "1", "--name", "tone"]):
        (line,) = (await lavant("scores", *flags, "--json")).out.splitlines()
        assert json.loads(line)["value"] == "polite"
    (line,) = (await lavant("scores", "--label", "team=w", "--run-name", "weather")).out.splitlines()
    assert "correct=true" in line
    assert (await lavant("scores", "--rule", "quality")).out == ""


async def test_scores_are_added_up(client: AsyncClient, lavant: Lavant) -> None:
    await finish_runs(client, ["a"])
    for value in (0.5, 1.0):
        await client.runs.score("a", name="correct", value=value)
    await client.runs.score("a", name="tone", value=True)
    groups = (await lavant("scores", "--by", "name,run-name")).out.splitlines()
    assert groups == ["correct\tweather\t2\t0\t0\t0.75\t\t0.5\t1", "tone\tweather\t1\t0\t0\t1\t1\t1\t1"]
    (day,) = (await lavant("scores", "--bucket", "1d", "--json")).out.splitlines()
    assert json.loads(day)["count"] == 3


async def test_versions_are_compared(client: AsyncClient, lavant: Lavant) -> None:
    assert (await lavant("scores", "--version", "2", "--against", "1")).out == ""
    for arguments, said in (
        (["--by", "weather"], "--by must be of rule, name"),
        (["--bucket", "day"], "--bucket must be like"),
    ):
        ended = await lavant("scores", *arguments)
        assert (ended.status, said in ended.err) == (2, True)
