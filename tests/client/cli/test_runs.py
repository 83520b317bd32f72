"""`lavant runs`."""

import asyncio
import json
import os
import re

import pytest

from client.cli.conftest import Lavant, Start
from lavant.client import AsyncClient
from support.calls import append, create
from support.events import run_started
from support.rules import create_rule
from support.server import Server

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


async def some_runs(client: AsyncClient) -> None:
    async with client.runs.start("weather", run_id="done", labels={"team": "search", "env": "x"}):
        pass
    with pytest.raises(ValueError, match="boom"):
        async with client.runs.start("weather-\x9b31m" + "long" * 20, run_id="broken", labels={"team": "ads"}):
            raise ValueError("boom")
    await client.runs.create("other", run_id="waiting", kind="evaluation")


async def test_a_pipe_gets_whole_columns(client: AsyncClient, lavant: Lavant) -> None:
    await some_runs(client)
    rows = [line.split("\t") for line in (await lavant("runs")).out.splitlines()]
    assert [(row[0], row[2], row[3], row[5]) for row in rows] == [
        ("waiting", "queued", "", "0"),
        ("broken", "failed", "team=ads", "2"),
        ("done", "succeeded", "env=x team=search", "2"),
    ]
    assert rows[1][1] == "weather- 31m" + "long" * 20


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--state", "failed", "--state", "succeeded"], ["broken", "done"]),
        (["--kind", "evaluation"], ["waiting"]),
        (["--name", "weather*"], ["broken", "done"]),
        (["--label", "team=search", "--label", "env=x"], ["done"]),
        (["--limit", "2"], ["waiting", "broken"]),
        (["--limit", "0", "--since", "1h"], ["waiting", "broken", "done"]),
        (["--since", "2999-01-01"], []),
    ],
)
async def test_filters(client: AsyncClient, lavant: Lavant, flags: list[str], found: list[str]) -> None:
    await some_runs(client)
    lines = (await lavant("runs", "--json", *flags)).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == found


async def test_system_runs_are_listed_with_their_flag(client: AsyncClient, lavant: Lavant, server: Server) -> None:
    await client.runs.create("other", run_id="waiting")
    await create_rule(server.stubs)

    async def listed(*arguments: str) -> list[str]:
        return [line.split("\t")[0] for line in (await lavant(*arguments)).out.splitlines()]

    assert await listed("runs") == ["waiting"]
    assert await listed("runs", "--system") == ["lavant.rule.1", "waiting"]
    assert await listed("evaluations") == ["lavant.rule.1"]


async def test_a_terminal_gets_a_table_of_80_columns(client: AsyncClient, start: Start) -> None:
    await some_runs(client)
    await client.runs.create("agent", run_id="1234567-" * 4 + "1234")
    coloured, plain = await in_terminal(start), await in_terminal(start, NO_COLOR="1")
    assert without_ages(COLOUR.sub("", coloured)) == without_ages(COLOUR.sub("", plain))
    assert "\x1b[32msucceeded" in coloured
    assert "\x1b[32m" not in plain
    lines = COLOUR.sub("", plain).splitlines()
    assert lines[0].split() == ["RUN", "NAME", "STATE", "LABELS", "AGE", "EVENTS"]
    assert [line.split()[0] for line in lines[1:]] == ["1234567-" * 4 + "1234", "waiting", "broken", "done"]
    assert max(map(len, lines)) <= 80


def without_ages(table: str) -> str:
    """The table, whatever time has passed."""
    return re.sub(r" +\d+s ", " ", table)


async def in_terminal(start: Start, **variables: str) -> str:
    """What `lavant runs` shows in a terminal."""
    master, terminal = os.openpty()
    process = await start("runs", stdout=terminal, **variables)
    os.close(terminal)
    shown = await asyncio.to_thread(read_all, master)
    assert (await process.ended()).status == 0
    return shown


def read_all(master: int) -> str:
    shown = b""
    try:
        while data := os.read(master, 65_536):
            shown += data
    except OSError:  # Linux raises once nobody has the other side open
        pass
    finally:
        os.close(master)
    return shown.decode()


async def test_watch_gives_a_line_for_each_change(server: Server, client: AsyncClient, start: Start) -> None:
    await create(server.stubs, "busy")
    await append(server.stubs, [run_started()], run_id="busy")
    await client.runs.create("agent", run_id="r")
    process = await start("runs", "--watch", "--json", "--state", "queued", "--state", "succeeded")
    assert json.loads(await process.line())["state"] == "queued"
    async with client.runs.start("agent", run_id="r"):
        pass
    assert json.loads(await process.line())["state"] == "succeeded"
    process.interrupt()
    ended = await process.ended()
    assert (ended.status, ended.err) == (130, "")


async def test_a_reader_that_leaves_ends_it_silently(client: AsyncClient, start: Start) -> None:
    await client.runs.create("agent", run_id="first")
    reading, writing = os.pipe()
    process = await start("runs", "--watch", stdout=writing)
    os.close(writing)
    assert (await asyncio.to_thread(os.read, reading, 65_536)).startswith(b"first\t")
    os.close(reading)
    await client.runs.create("agent", run_id="second")
    ended = await process.ended()
    assert (ended.status, ended.err) == (141, "")
