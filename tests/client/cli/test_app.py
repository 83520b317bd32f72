"""The command as a whole: help, versions, wrong usage, errors."""

import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from client.cli.conftest import Lavant
from lavant.client.cli.app import app, run
from support.command import run_command


@pytest.mark.parametrize(
    "command",
    ["runs", "tail", "wait", "cancel", "export", "import", "backup", "restore", "evaluate", "score", "scores"],
)
def test_help_shows_examples(command: str) -> None:
    assert command in CliRunner().invoke(app, ["--help"]).output
    assert f"lavant {command}" in CliRunner().invoke(app, [command, "--help"]).output.partition("Examples:")[2]


def test_the_help_of_a_command_begins_as_the_list_of_commands_says() -> None:
    group: Any = typer.main.get_command(app)
    for name, entry in group.commands.items():
        assert group.get_command(None, name).help.partition("\n")[0] == entry.help


def test_serve_hands_its_flags_to_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["serve", "--listen", "nowhere"])
    assert result.exit_code == 2
    assert "listen" in result.output + capsys.readouterr().err


async def test_version_and_completion(lavant: Lavant) -> None:
    assert (await lavant("--version")).out.startswith("lavant 0.")
    completed = await lavant(_LAVANT_COMPLETE="complete_bash", COMP_WORDS="lavant ca", COMP_CWORD="1")
    assert completed.out.split() == ["cancel"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--nonsense"],
        ["nonsense"],
        ["wait"],
        ["runs", "--state", "happy"],
        ["runs", "--label", "no-value"],
        ["runs", "--since", "yesterday"],
        ["runs", "--target", "one,two"],
        ["export"],
        ["export", "r", "--all"],
    ],
)
def test_wrong_usage_is_reported_on_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("lavant: ")
    assert "--help`" in said.err


async def test_errors_are_reported_on_one_line(lavant: Lavant) -> None:
    unknown = await lavant("wait", "nowhere")
    assert (unknown.status, unknown.out) == (1, "")
    assert unknown.err == "lavant: run nowhere does not exist: `lavant runs` lists those that exist\n"
    missing = await lavant("import", "/nowhere/file")
    assert (missing.status, missing.err) == (1, "lavant: /nowhere/file: No such file or directory\n")
    secret = await lavant("runs", LAVANT_API_KEY="a\nb")
    assert secret.status == 2
    assert "a\nb" not in secret.err


async def test_a_traceback_shows_no_keys() -> None:
    broken = "import lavant.client.cli.session as session; session.AsyncClient = lambda *a, **k: 1 / 0"
    program = (sys.executable, "-c", f"{broken}; from lavant.client.cli import main; main()")
    ended = await run_command("runs", program=program, variables={"LAVANT_API_KEY": "hunter2"})
    assert ended.status == 1
    assert "ZeroDivisionError" in ended.err
    assert "hunter2" not in ended.err


async def test_an_unreachable_server_is_reported(lavant: Lavant) -> None:
    ended = await lavant("runs", "--target", "127.0.0.1:1")
    assert ended.status == 1
    assert ended.err.startswith("lavant: no server answers at 127.0.0.1:1: start one with `lavant serve`")
    assert ended.err.count("\n") == 1
