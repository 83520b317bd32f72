"""Workers are killed at random while runs finish: every run has each evaluator's score exactly once.

Another seed: LAVANT_CHAOS_SEED=7 pytest tests/client/evals/test_process_stream_killed.py
"""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from lavant.client import AsyncClient
from lavant.server.store.jetstream import Location
from support.sampled import RULE, Cold, Length, finish_runs, found_scores, result_scores
from support.server import ServerProcess

KILLS = 3
PRODUCERS = 5
SEED = int(os.environ.get("LAVANT_CHAOS_SEED", "1"))
TESTS = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


async def test_on_a_store_of_its_own(server_process: ServerProcess) -> None:
    await judge_while_killed(server_process, runs=500)


async def test_on_a_shared_store(location: Location, tmp_path: Path) -> None:
    process = ServerProcess(tmp_path, store=str(location))
    await process.start()
    try:
        await judge_while_killed(process, runs=150)
    finally:
        await process.kill()


async def judge_while_killed(server: ServerProcess, runs: int) -> None:
    """Have runs evaluated by a worker that is killed again and again, at first while they finish."""
    random = Random(SEED)
    run_ids = [f"run-{number}" for number in range(runs)]
    once = Counter([(run_id, name) for run_id in run_ids for name in ("Cold", "Length")])
    async with AsyncClient(server.target) as client:
        await client.rules.create(RULE, evaluators=[Cold(), Length()])
        live = asyncio.gather(*(finish_runs(client, run_ids[first::PRODUCERS]) for first in range(PRODUCERS)))
        for _ in range(KILLS):
            worker = await Worker.start(server.target)
            await worker.judges(random.randint(1, runs // 10))
            await worker.kill()
        await live
        worker = await Worker.start(server.target)
        await worker.is_done()
        progress = (await client.rules.get(RULE)).progress
        assert (progress.runs_selected, progress.runs_evaluated, progress.runs_failed) == (runs, runs, 0)
        assert await result_scores(client) == once
        assert await found_scores(client) == once


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, target: str) -> "Worker":
        """Start one."""
        command = (sys.executable, "-m", "support.worker_process", target)
        return cls(await asyncio.create_subprocess_exec(*command, cwd=TESTS, stdout=asyncio.subprocess.PIPE))

    async def judges(self, count: int) -> None:
        """Wait until it has evaluated so many runs, or all that there are so far."""
        while count and await self._line() != "done":
            count -= 1

    async def is_done(self) -> None:
        """Wait until it has evaluated all runs, and succeeded."""
        while await self._line() != "done":
            pass
        assert await self._process.wait() == 0

    async def kill(self) -> None:
        """Kill it, if it is still there."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            line = await self._process.stdout.readline()
        assert line, "the worker ended by itself"
        return line.decode().strip()
