"""Starts of processes: importing the client, and the command line's help."""

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench, Figures

WALL, CPU = "wall s", "CPU s"
LIBRARIES = (sys.executable, "-c", "import grpc.aio, pydantic")


async def run(bench: Bench) -> list[Table]:
    """Compare with importing grpc.aio and pydantic, which the client is made of; names are imported at first use."""
    package = (sys.executable, "-c", "import lavant.client")
    client = (sys.executable, "-c", "from lavant.client import AsyncClient")
    command = (str(Path(sys.executable).parent / "lavant"), "--help")
    return [
        await _table(bench, "import", "import lavant.client", package, 0.35),
        await _table(bench, "import-client", "from lavant.client import AsyncClient", client, None),
        await _table(bench, "help", "lavant --help", command, 0.2),
    ]


async def _table(bench: Bench, name: str, title: str, command: tuple[str, ...], aim: float | None) -> Table:
    measured = await bench.interleaved(
        {
            "lavant": partial(_start, command),
            "grpc.aio, pydantic": partial(_start, LIBRARIES),
            "python": partial(_start, (sys.executable, "-c", "")),
        }
    )
    return Table(
        name=name,
        title=f"`{title}`, a process",
        measured=measured,
        aims=[Aim(unit=WALL, at_most=aim)] if aim else [],
        recorded=[CPU],
        baseline="grpc.aio, pydantic",
    )


async def _start(command: tuple[str, ...], _: int) -> Figures:
    return await asyncio.to_thread(_started, command)


def _started(command: tuple[str, ...]) -> Figures:
    began = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0
    return {WALL: time.perf_counter() - began, CPU: usage.ru_utime + usage.ru_stime}
