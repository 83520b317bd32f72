"""Many runs in a store, written before the server starts."""

import asyncio
from pathlib import Path

from benchmarks.events import batch
from lavant.server.clock import SystemClock
from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.run_pb2 import Run, RunState

AT_ONCE = 1_000


def row(number: int) -> tuple[str, str, str, dict[str, str]]:
    """Return a run's id, name, state and labels: one in ten runs still, one in 2,000 failed.

    No run of team t7 is in production.
    """
    state = "failed" if number % 2_000 == 1_999 else "succeeded" if number % 10 else "running"
    labels = {"env": ("prod", "dev")[number % 2], "team": f"t{number % 50}", "user": f"u{number % 5000}"}
    return f"run-{number:07}", f"agent-{number % 20}", state, labels


async def fill(path: Path, runs: int) -> None:
    """Write so many runs."""
    engine = await SQLiteEngine.open(path, clock=SystemClock())

    async def create(number: int) -> None:
        run_id, name, state, labels = row(number)
        key = RunKey("default", run_id)
        await engine.create_run(key, Run(run_id=run_id, name=name, labels=labels))
        events = batch(run_id, 1, ["text"], end=state != "running")
        if state == "failed":
            finished = events.events[-1].run_finished
            finished.state, finished.error.message = RunState.RUN_STATE_FAILED, "it broke"
        await engine.append(key, events)

    for first in range(0, runs, AT_ONCE):
        await asyncio.gather(*(create(number) for number in range(first, first + AT_ONCE)))
    await engine.close()
