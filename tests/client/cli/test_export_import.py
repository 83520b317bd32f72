"""`lavant export` and `lavant import`, from one server to another."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client.cli.conftest import Lavant
from lavant.client import AsyncClient
from lavant.v1.run_pb2 import RunState
from support.calls import append, create, get, listed
from support.events import a_run_of, custom, run_finished, run_started
from support.rules import create_rule
from support.server import Server, serving

OF_THE_SERVER = {"record_time", "create_time", "update_time", "end_time", "producer_seen_time"}


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Server]:
    """The server that is imported into."""
    folder = tmp_path / "other"
    folder.mkdir()
    async with serving(folder) as running:
        yield running


async def some_runs(server: Server) -> None:
    """An abandoned run of several batches, a run of an agent, a run that has not ended, and an empty one."""
    await create(server.stubs, "long", labels={"a": "b"}, conversation_id="c", producer_timeout={"seconds": 60})
    await append(server.stubs, a_run_of(900, finished=False), run_id="long")
    await append(
        server.stubs, [custom(value_json='"%s"' % ("x" * 9_000)) for _ in range(100)], run_id="long", first=901
    )
    await append(server.stubs, [run_finished(RunState.RUN_STATE_ABANDONED)], run_id="long", producer_id="q")
    async with AsyncClient(server.target) as client, client.runs.start("weather", run_id="said", kind="agent") as run:
        await run.text("kaldt å ")
        async with run.tool("search", {"q": 1}) as tool:
            tool.result = {"n": 2**60}
    await create(server.stubs, "open", parent_run_id="said")
    await append(server.stubs, [run_started(), custom()], run_id="open")
    await create(server.stubs, "empty")


def comparable(text: str) -> list[Any]:
    """The lines of an export without what each server sets by itself."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(item) for key, item in value.items() if key not in OF_THE_SERVER}
        return value

    return [bare(json.loads(line)) for line in text.splitlines()]


async def test_system_runs_are_left_out(server: Server, other: Server, lavant: Lavant, tmp_path: Path) -> None:
    await create(server.stubs, "run")
    await create_rule(server.stubs)
    file = tmp_path / "all.jsonl"
    await lavant("export", "--all", "-o", str(file))
    assert "lavant.rule.1" not in file.read_text()
    await lavant("export", "lavant.rule.1", "-o", str(file))
    result = await lavant("import", str(file), "-t", other.target)
    assert "run lavant.rule.1 is a system run, which no server imports: leave it out" in result.err.replace("\n", " ")
    assert result.status == 1


async def test_an_import_is_the_same_again(server: Server, other: Server, lavant: Lavant, tmp_path: Path) -> None:
    await some_runs(server)
    file = tmp_path / "all.jsonl"
    exported = await lavant("export", "--all", "-o", str(file))
    assert exported.err.startswith("lavant: exported 4 runs, 10")
    imported = await lavant("import", str(file), "-t", other.target)
    assert imported.status == 0, imported.err
    assert comparable((await lavant("export", "--all", "-t", other.target)).out) == comparable(file.read_text())
    assert (await get(other.stubs, "long")).state == RunState.RUN_STATE_ABANDONED
    assert (await get(other.stubs, "open")).state == RunState.RUN_STATE_RUNNING
    again = await lavant("import", "-", "-t", other.target, input=file.read_bytes())
    assert (again.status, again.err) == (0, "lavant: imported 4 runs, 0 events stored, 3 runs existed already\n")
    back = await lavant("import", str(file))
    assert (back.status, back.err) == (0, "lavant: imported 4 runs, 0 events stored, 3 runs existed already\n")


async def test_runs_are_named_or_selected(server: Server, lavant: Lavant) -> None:
    await some_runs(server)

    async def ids(*arguments: str) -> list[str]:
        lines = [json.loads(line) for line in (await lavant("export", *arguments)).out.splitlines()]
        return [line["run"]["run_id"] for line in lines if "lavant" in line]

    assert await ids("open", "empty") == ["open", "empty"]
    assert await ids("--name", "weath*", "--state", "queued", "--state", "running") == ["open", "empty"]
    assert await ids("--since", "1h", "--label", "a=b") == ["long"]


async def test_a_failed_export_leaves_the_file_alone(lavant: Lavant, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    file.write_text("kept")
    assert (await lavant("export", "nowhere", "-o", str(file))).status == 1
    assert file.read_text() == "kept"
    assert [entry.name for entry in os.scandir(tmp_path) if "kept" in entry.name] == ["kept.jsonl"]


async def test_an_import_that_died_is_continued(server: Server, other: Server, lavant: Lavant) -> None:
    await some_runs(server)
    whole = (await lavant("export", "long")).out.encode()
    begun = [event for event in await listed(server.stubs, "long") if event.sequence <= 950]
    await create(other.stubs, "long", labels={"a": "b"}, conversation_id="c", producer_timeout={"seconds": 60})
    await append(other.stubs, begun, run_id="long", producer_id="import", epoch=1)
    continued = await lavant("import", "-t", other.target, input=whole)
    assert continued.err == "lavant: imported 1 run, 51 events stored\n"
    assert comparable((await lavant("export", "long", "-t", other.target)).out) == comparable(whole.decode())


async def test_a_later_export_continues_a_run(server: Server, other: Server, lavant: Lavant) -> None:
    await create(server.stubs, "r")
    await append(server.stubs, [run_started()], run_id="r")
    early = (await lavant("export", "r")).out.encode()
    await append(server.stubs, [run_finished()], run_id="r", first=2)
    late = (await lavant("export", "r")).out.encode()
    assert (await lavant("import", "-t", other.target, input=early)).status == 0
    assert (await lavant("import", "-t", other.target, input=late)).err.endswith("1 event stored\n")
    assert (await lavant("import", "-t", other.target, input=early)).err.endswith(
        "0 events stored, 1 run existed already\n"
    )


async def test_other_content_is_refused(server: Server, other: Server, lavant: Lavant) -> None:
    await create(server.stubs, "r")
    await append(server.stubs, [run_started(), custom(), run_finished()], run_id="r")
    exported = (await lavant("export", "r")).out.encode()
    await create(other.stubs, "r")
    await append(other.stubs, [run_started()], run_id="r")
    for flags in ([], ["--dry-run"]):
        differs = await lavant("import", *flags, "-t", other.target, input=exported)
        assert differs.status == 1
        assert "lavant: stdin:2: run r exists with other content, event 1 differs: delete it there" in differs.err
        settings = await lavant("import", *flags, input=exported.replace(b'"weather"', b'"sunny"'))
        assert settings.status == 1
        assert "lavant: stdin:1: run r exists with other content, it has other settings" in settings.err


async def test_a_dry_run_stores_nothing(server: Server, other: Server, lavant: Lavant) -> None:
    await some_runs(server)
    exported = (await lavant("export", "said", "empty")).out.encode()
    checked = await lavant("import", "--dry-run", "-t", other.target, input=exported)
    assert checked.err.startswith("lavant: checked 2 runs, ")
    assert (await lavant("runs", "-t", other.target)).out == ""


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda lines: [*lines[:2], lines[2][:-9], *lines[3:]], "stdin:3: the line is not JSON"),
        (lambda lines: [*lines[:2], *lines[3:]], "stdin:3: the line has sequence 3; 2 comes next"),
        (lambda lines: lines[:3], "stdin:3: run r breaks off after 2 of 3 events"),
        (lambda lines: [*lines, lines[3].replace('"3"', '"4"')], "stdin:5: the line is one event more"),
        (lambda lines: lines[1:], "stdin:1: the line is an event without a run before it"),
    ],
)
async def test_a_damaged_run_is_not_created(
    server: Server, other: Server, lavant: Lavant, damage: Any, place: str
) -> None:
    await create(server.stubs, "r")
    await append(server.stubs, [run_started(), custom(), run_finished()], run_id="r")
    lines = damage((await lavant("export", "r")).out.splitlines())
    refused = await lavant("import", "-t", other.target, input="\n".join(lines).encode())
    assert refused.status == 1
    assert f"lavant: {place}" in refused.err
    assert (await lavant("runs", "-t", other.target)).out == ""


async def test_an_event_that_the_server_refuses_is_named(server: Server, other: Server, lavant: Lavant) -> None:
    await create(server.stubs, "r")
    await append(server.stubs, [run_started(), custom(), run_finished()], run_id="r")
    exported = (await lavant("export", "r")).out.replace("acme.note", "")
    refused = await lavant("import", "-t", other.target, input=exported.encode())
    assert refused.status == 1
    assert "lavant: stdin:3: the server refused the event: " in refused.err
