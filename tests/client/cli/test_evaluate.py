"""`lavant evaluate`."""

import json
import sys
from pathlib import Path

import pytest
import typer

from client.cli.conftest import Lavant, Start
from client.cli.terminal import terminal
from lavant.client import AsyncClient
from lavant.client.cli.evaluate import find_evaluators
from lavant.client.cli.options import names_of
from lavant.client.cli.session import CommandError
from support.sampled import RULE, Cold, finish_runs

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


async def test_selected_runs_are_evaluated(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create(RULE, evaluators=[Cold()])
    await finish_runs(client, ["a"])
    ended = await lavant(
        *("evaluate", RULE, "--evaluators", "support.sampled:Cold", "--once", "--label", "team=weather"),
        PYTHONPATH=TESTS,
    )
    assert (ended.status, ended.out, ended.err) == (0, "a\tweather\tCold=true\n", "")
    [score] = [score async for score in client.runs.scores("a")]
    assert (score.value, score.labels) == (True, {"team": "weather"})


async def test_the_variable_sets_the_model_of_llm_judges(client: AsyncClient, lavant: Lavant) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    ended = await lavant(
        "evaluate", RULE, "--judges", "success,clearness", "--once", "--json", LAVANT_JUDGE_MODEL="test"
    )
    assert ended.status == 0
    (line,) = ended.out.splitlines()
    assert [score["name"] for score in json.loads(line)["scores"]] == ["success", "clarity"]
    assert json.loads(line)["run"]["id"] == "a"


async def test_evaluators_are_found_in_the_working_folder(client: AsyncClient, start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    await client.rules.create(RULE)
    await finish_runs(client, ["a"])
    process = await start("evaluate", RULE, "-e", "own:Loud", "--once", PYTHONPATH=str(tmp_path))
    assert await process.line() == "a\tweather\tLoud=false"
    assert (await process.ended()).status == 0


async def test_an_interrupted_worker_returns_its_samples(client: AsyncClient, start: Start, tmp_path: Path) -> None:
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
    assert done.evaluated == 2


@pytest.mark.parametrize(
    ("paths", "judges", "model", "said"),
    [
        ([], "", None, "no evaluators: pass"),
        ([], "beauty", "test", "--judges must be of correctness"),
        ([], "success", None, "--judges need a model"),
        (["own"], "", None, "must be package.module:name, not 'own'"),
        (["own:nothing"], "", None, "own has no nothing"),
        (["own:number"], "", None, "own:number is neither an evaluator"),
        (["own:Contains"], "", None, "own:Contains cannot be created"),
        (["nowhere:x"], "", None, "nowhere:x: nowhere is missing"),
    ],
    ids=["nobody", "unknown", "no model", "no name", "not there", "a number", "arguments", "no module"],
)
def test_missing_or_wrong_evaluators_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], judges: str, model: str | None, said: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    with pytest.raises((typer.BadParameter, CommandError), match=said):
        find_evaluators(paths, names_of(judges), model)


async def test_wrong_usage_has_a_status_of_its_own(lavant: Lavant) -> None:
    ended = await lavant("evaluate", RULE, LAVANT_JUDGE_MODEL="")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "no evaluators: pass" in ended.err


async def test_a_missing_package_is_reported_with_its_extra(lavant: Lavant, tmp_path: Path) -> None:
    (tmp_path / "pydantic_evals.py").write_text("raise ModuleNotFoundError(name='pydantic_evals')")
    ended = await lavant("evaluate", RULE, "--judge", "test", PYTHONPATH=str(tmp_path))
    assert (ended.status, ended.err) == (1, "lavant: pydantic_evals is missing: pip install 'lavant[evals]'\n")


async def test_an_unknown_rule_is_reported(lavant: Lavant) -> None:
    ended = await lavant("evaluate", "nowhere", "--judge", "test")
    assert ended.status == 1
    assert ended.err.endswith("`lavant rules list` lists those that exist\n")


async def test_a_terminal_shows_the_number_of_evaluated_runs(client: AsyncClient, start: Start) -> None:
    await client.rules.create(RULE)
    await finish_runs(client, ["a", "b"])
    async with terminal(start, "evaluate", RULE, "-e", "support.sampled:Cold", PYTHONPATH=TESTS) as screen:
        lines = await screen.shows(lambda lines: bool(lines) and lines[-1].endswith("rule quality: 2 evaluated"))
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
