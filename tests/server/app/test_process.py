"""The server as a process: how it starts, what it says, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from lavant.v1.event_service_pb2 import StreamEndReason, StreamEventsRequest
from support.calls import answer, append, create, ended_run, get, publish, publishing
from support.events import a_run_of, run_started
from support.server import ServerProcess, connected
from support.status import refused

LIMIT = 20.0
SERVER = ("-m", "lavant.server")
CLI = ("-c", "from lavant.client.cli import main; main()", "serve")


async def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run Python to its end; returns the exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **options
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def failed_start(folder: Path, *flags: str, store: str = "", listen: str = "127.0.0.1:0") -> str:
    """The one line that a server which cannot start says; it must exit with 1."""
    place = ("--listen", listen, "--store", f"sqlite:///{store or folder / 'lavant.db'}")
    status, out, err = await run(*SERVER, *place, *flags)
    assert (status, out) == (1, ""), err
    (line,) = err.splitlines()
    assert line.startswith("lavant: ")
    return line


async def test_one_line_shows_where_it_serves(server_process: ServerProcess) -> None:
    host, port = server_process.target.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    async with connected(server_process.target) as stubs:
        await create(stubs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_0(server_process: ServerProcess, number: signal.Signals) -> None:
    async with connected(server_process.target) as stubs, publishing(stubs) as call:
        await create(stubs)
        await publish(call, [run_started()])
        await answer(call)
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"), timeout=LIMIT)
        await stream.read()
        os.kill(server_process.pid, number)
        frames = [frame async for frame in _rest(stream)]
        with refused("UNAVAILABLE"):
            await answer(call)
        assert await stream.code() == StatusCode.OK
    assert await server_process.died() == 0
    assert frames[-1].end.reason == StreamEndReason.STREAM_END_REASON_DRAINING
    assert frames[-1].end.reconnect


async def _rest(stream: Any) -> Any:
    while frame := await stream.read():
        yield frame


async def test_what_is_stored_outlives_a_kill_and_a_stop(server_process: ServerProcess) -> None:
    async with connected(server_process.target) as stubs:
        await ended_run(stubs, "first")
    await server_process.restart()
    async with connected(server_process.target) as stubs:
        await create(stubs, "second")
        await append(stubs, a_run_of(4), run_id="second")
    assert await server_process.terminate() == 0
    await server_process.start()
    async with connected(server_process.target) as stubs:
        assert [(await get(stubs, run_id)).last_sequence for run_id in ("first", "second")] == [4, 4]


async def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await failed_start(tmp_path, listen=listen)
    assert line == f"lavant: cannot listen on {listen}: Address already in use"


async def test_an_address_of_nobody(tmp_path: Path) -> None:
    line = await failed_start(tmp_path, "--insecure", listen="203.0.113.1:0")
    assert line == "lavant: cannot listen on 203.0.113.1:0: Cannot assign requested address"


async def test_a_store_has_one_owner(server_process: ServerProcess, tmp_path: Path) -> None:
    line = await failed_start(tmp_path)
    assert f"{tmp_path / 'lavant.db'} is in use by another process" in line


async def test_missing_folders_are_made(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "not" / "yet")
    await process.start()
    assert await process.terminate() == 0
    assert (tmp_path / "not" / "yet" / "lavant.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"this is no database, however long one looks at it" * 100, "is damaged"),
        (b"SQLite format 3\0" + bytes(4_080), "is damaged"),
    ],
)
async def test_a_file_that_is_no_store(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "lavant.db").write_bytes(content)
    assert expected in await failed_start(tmp_path)
    assert (tmp_path / "lavant.db").read_bytes() == content


async def test_a_store_that_was_cut_off(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    await process.start()
    assert await process.terminate() == 0
    path = tmp_path / "lavant.db"
    path.write_bytes(path.read_bytes()[:-5_000])
    assert "is damaged" in await failed_start(tmp_path)


async def test_a_folder_as_a_store(tmp_path: Path) -> None:
    assert "cannot open the store" in await failed_start(tmp_path, store=str(tmp_path))


async def test_a_store_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot open the store" in await failed_start(tmp_path, store=str(tmp_path / "file" / "lavant.db"))


async def test_a_store_that_may_not_be_written(tmp_path: Path) -> None:
    assert "cannot open the store" in await failed_start(tmp_path, store="/proc/lavant/lavant.db")


@pytest.mark.parametrize("command", [SERVER, CLI], ids=["python -m lavant.server", "lavant serve"])
async def test_help_lists_the_settings(command: tuple[str, ...]) -> None:
    status, out, err = await run(*command, "--help")
    assert (status, err) == (0, "")
    assert "usage: lavant serve" in out
    for flag in ("--listen", "--http", "--store", "--insecure", "--max-streams", "--log-format"):
        assert flag in out


async def test_lavant_serve_serves(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *CLI, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--store", f"sqlite:///{tmp_path}/lavant.db"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        line = (await process.stdout.readline()).decode()
        process.terminate()
        rest = await process.stdout.read()
        assert await process.wait() == 0
    assert re.fullmatch(r"lavant serving grpc=127\.0\.0\.1:\d+ http=127\.0\.0\.1:\d+ admin=127\.0\.0\.1:\d+\n", line)
    assert rest == b""


@pytest.mark.parametrize("command", [SERVER, CLI], ids=["python -m lavant.server", "lavant serve"])
async def test_bad_settings_end_with_2(command: tuple[str, ...]) -> None:
    status, out, err = await run(*command, "--listen", "0.0.0.0:0")
    assert (status, out) == (2, "")
    assert err.startswith("lavant: listening on 0.0.0.0 would let everyone")


async def test_logs_can_be_json(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        await process.start("--log-format", "json", stderr=log)
        assert await process.terminate() == 0
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert "draining" in [entry["event"] for entry in entries]
    assert all({"timestamp", "level", "logger"} <= entry.keys() for entry in entries)
