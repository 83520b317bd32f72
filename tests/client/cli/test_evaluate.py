"""`lavant evaluate`."""

import json
import sys
from pathlib import Path

import pytest
import typer

from client.cli.conftest import Lavant, Start
from client.cli.terminal import terminal
from client.sampled import RULE, Cold, finish_runs
from lavant.client import AsyncClient
from lavant.client.cli._evaluators import evaluators_of
from lavant.client.cli._failures import CommandError

TESTS = str(Path(__file__).parents[2])
OWN = """
import asyncio
from dataclasses import dataclass

from pydantic_evals.evaluators import Evaluator


@dataclass
class Waits(Evaluator):
    async def evaluate(self, ctx):
        print("began", flush=True)
        await asyncio.Event().wait()


@dataclass
class Loud(Evaluator):
    def evaluate(self, ctx):
        return ctx.output.isupper()


@dataclass
class Contains(Evaluator):
    text: str

    def evaluate(self, ctx):
        return self.text in ctx.output


@dataclass
class Down(Evaluator):
    def evaluate(self, ctx):
        raise TimeoutError("no model answers")


both = [Loud(), Waits()]
number = 7
"""


async def test_what_a_rule_draws_is_judged(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create(RULE, evaluators=[Cold()])
    await finish_runs(client, ["a"])
    ended = await lavant(
        *("evaluate", RULE, "--evaluators", "client.sampled:Cold", "--once", "--label", "team=weather"),
        PYTHONPATH=TESTS,
    )
    assert (ended.status, ended.out, ended.err) == (0, "a\tweather\tCold=true\n", "")
    [score] = [score async for score in client.runs.scores("a")]
    assert (score.value, score.labels) == (True, {"team": "weather"})


async def test_the_judges_model_is_one_setting(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    ended = await lavant(
        "evaluate", RULE, "--judges", "success,clearness", "--once", "--json", LAVANT_JUDGE_MODEL="test"
    )
    assert ended.status == 0
    (line,) = ended.out.splitlines()
    assert [score["name"] for score in json.loads(line)["scores"]] == ["success", "clearness"]
    assert json.loads(line)["run"]["id"] == "a"


async def test_evaluators_are_found_in_the_working_folder(client: AsyncClient, start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    process = await start("evaluate", RULE, "-e", "own:Loud", "--once", PYTHONPATH=str(tmp_path))
    assert await process.line() == "a\tweather\tLoud=false"
    assert (await process.ended()).status == 0


async def test_an_interrupted_worker_gives_its_samples_back(client: AsyncClient, start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    await client.rules.create(RULE)
    await finish_runs(client, ["a", "b"])
    process = await start(
        *("evaluate", RULE, "-e", "own:both", "--timeout", "600", "--max-concurrency", "1"), PYTHONPATH=str(tmp_path)
    )
    assert await process.line() == "began"
    process.interrupt()
    ended = await process.ended()
    assert (ended.status, ended.out) == (130, "")
    done = await client.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True)
    assert done.judged == 2


@pytest.mark.parametrize(
    ("paths", "judges", "model", "said"),
    [
        ([], "", None, "name who judges"),
        ([], "beauty", "test", "--judges must be of correctness"),
        ([], "success", None, "--judges need a model"),
        (["own"], "", None, "must be package.module:name, not 'own'"),
        (["own:nothing"], "", None, "own has no nothing"),
        (["own:number"], "", None, "own:number is no evaluator"),
        (["own:Contains"], "", None, "own:Contains cannot be made"),
        (["nowhere:x"], "", None, "nowhere:x: nowhere is missing"),
    ],
    ids=["nobody", "unknown", "no model", "no name", "not there", "a number", "arguments", "no module"],
)
def test_who_judges_must_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], judges: str, model: str | None, said: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    with pytest.raises((typer.BadParameter, CommandError), match=said):
        evaluators_of(paths, judges, model)


async def test_wrong_usage_has_a_status_of_its_own(lavant: Lavant) -> None:
    ended = await lavant("evaluate", RULE, LAVANT_JUDGE_MODEL="")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "name who judges" in ended.err


async def test_what_to_install_is_told(lavant: Lavant, tmp_path: Path) -> None:
    (tmp_path / "pydantic_evals.py").write_text("raise ModuleNotFoundError(name='pydantic_evals')")
    ended = await lavant("evaluate", RULE, "--judge", "test", PYTHONPATH=str(tmp_path))
    assert (ended.status, ended.err) == (1, "lavant: pydantic_evals is missing: pip install 'lavant[evals]'\n")


async def test_a_rule_that_is_not_there_is_told(lavant: Lavant) -> None:
    ended = await lavant("evaluate", "nowhere", "--judge", "test")
    assert ended.status == 1
    assert ended.err.endswith("`lavant rules list` lists those that exist\n")


async def test_a_terminal_shows_how_many_are_judged(client: AsyncClient, start: Start) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a", "b"])
    async with terminal(start, "evaluate", RULE, "-e", "client.sampled:Cold", PYTHONPATH=TESTS) as screen:
        lines = await screen.shows(lambda lines: bool(lines) and lines[-1].endswith("rule quality: 2 judged"))
        assert sorted(line[:17] for line in lines[:2]) == ["✓ a  weather  Col", "✓ b  weather  Col"]
        screen.process.interrupt()
        assert await screen.ended() == 130
    assert not screen.cursor_is_hidden


async def test_runs_that_wait_for_an_evaluator_are_a_failure(client: AsyncClient, start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    process = await start("evaluate", RULE, "-e", "own:Down", "--once", PYTHONPATH=str(tmp_path))
    ended = await process.ended()
    assert (ended.status, "1 runs wait for another attempt: Down: no model answers" in ended.err) == (1, True)
