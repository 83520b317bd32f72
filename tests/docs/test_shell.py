"""The shell commands of the README and the documentation work, line by line, against a server.

Commands that are not run are checked as far as that goes: flags exist, so do targets of make and extras of pip.
"""

import asyncio
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass

from docs.snippets import ROOT, pages_with, snippets
from lavant.client import AsyncClient
from lavant.client.cli.app import app
from lavant.server.app.settings import Settings
from support.offline import evaluation
from support.server import Server, serving

LIMIT = 120.0
RUN_ID = "run-of-the-pages"
OTHER_PROGRAMS = {"curl", "buf", "ghz", "grpc-health-probe", "grpcurl"}


def lines(page: str, *, run: bool) -> list[str]:
    """Return a page's commands without comments: those that are run, or those that are not."""
    code = "".join(snippet.code for snippet in snippets(page, "sh") if snippet.is_run is run)
    return [line for line in (re.sub(r"\s+# .*", "", line).strip() for line in code.splitlines()) if line]


def commands(line: str) -> list[list[str]]:
    """Return the words of each command of a line: a pipe has several."""
    return [shlex.split(part) for part in line.split(" | ")]


def problems(words: list[str]) -> list[str]:
    """Return what is wrong with a command, without running it."""
    match words:
        case ["make", target, *_]:
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            return [] if target in targets else [f"make has no target {target}"]
        case ["pip", "install", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            asked = re.findall(r"[\w-]+", what)
            return [f"there is no extra {extra}" for extra in asked if extra not in extras]
        case ["lavant", "serve", *flags]:
            known = {"--" + name.replace("_", "-") for name in Settings.model_fields}
            return [f"serve has no {flag}" for flag in flags if flag.startswith("--") and flag not in known]
        case ["lavant", *rest]:
            return parse(rest)
    if call := re.search(r"lavant\.v1\.\w+[./]\w+", " ".join(words)):
        return bad_request(call[0].replace("/", "."), words)
    return [] if words[0] in OTHER_PROGRAMS else [f"{words[0]} is not known here"]


def bad_request(method: str, words: list[str]) -> list[str]:
    """Return what is wrong with a call by a gRPC tool: its method, or the JSON of its request."""
    flag = next((flag for flag in ("-d", "--data") if flag in words), None)
    try:
        found = descriptor_pool.Default().FindMethodByName(method) if flag or "describe" in words else None
        if flag and found:
            json_format.Parse(words[words.index(flag) + 1], GetMessageClass(found.input_type)())
    except (KeyError, json_format.ParseError) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def parse(arguments: list[str]) -> list[str]:
    """Parse the arguments of `lavant` without running it."""
    command: Any = typer.main.get_command(app)
    try:
        while hasattr(command, "get_command"):
            name, *arguments = arguments
            command = command.get_command(None, name)
        command.make_context(command.name, list(arguments))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return []


@pytest.mark.parametrize("page", pages_with("sh"))
def test_the_commands_of_a_page_exist(page: str) -> None:
    for line in (*lines(page, run=True), *lines(page, run=False)):
        for words in commands(line):
            assert not problems(words), line


@pytest.mark.parametrize(
    "line",
    [
        "grpcurl -d '{\"run_id\": 1}' localhost:7447 lavant.v1.RunService/GetRun",
        "buf curl --data '{}' http://localhost:7447/lavant.v1.RunService/Nothing",
        "make nothing",
        "pip install '.[nothing]'",
        "lavant serve --nothing 1",
        "lavant runs --nothing",
        "rm -rf x",
    ],
)
def test_a_command_that_does_not_exist_is_seen(line: str) -> None:
    assert problems(commands(line)[0])


@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in pages_with("sh") if lines(page, run=True)])
async def test_the_commands_of_a_page_run(page: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "own").mkdir()
    async with (
        serving(tmp_path / "own", http="127.0.0.1:0") as server,
        serving(tmp_path / "other") as other,
        AsyncClient(server.target) as client,
    ):
        async with client.runs.start("weather-agent", run_id=RUN_ID) as run:
            await run.text("It is cold.")
        await evaluation(client, "nightly-7")
        for line in lines(page, run=True):
            await execute(line, tmp_path, server, other)


async def execute(line: str, folder: Path, server: Server, other: Server) -> None:
    """Run a line in a shell as its reader would, on the test's server and store."""
    line = line.replace("other:7447", other.target).replace("RUN", RUN_ID)
    line = line.replace("127.0.0.1:7448", server.app.http_address)
    line = line.replace("sqlite:///lavant.db", f"sqlite:///{folder}/own/lavant.db")
    process = await asyncio.create_subprocess_shell(
        line,
        cwd=folder,
        env={
            **os.environ,
            "LAVANT_TARGET": server.target,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LIMIT):
        output, _ = await process.communicate()
    assert process.returncode == 0, f"{line}\n{output.decode()}"
