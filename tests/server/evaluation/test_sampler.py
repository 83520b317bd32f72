"""A sampler continues, whichever workers come and go."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lavant.server.evaluation.coordinator import Coordinator
from lavant.server.evaluation.rules import Rules
from lavant.server.evaluation.sampler import Sampler
from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.run_pb2 import Run, RunKind
from support.calls import until
from support.clock import ManualClock
from support.events import batch_of, run_finished, run_started
from support.rules import a_rule

RULE = RunKey("default", "rule")


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    opened = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield opened
    await opened.close()


@pytest.fixture
async def coordinator(engine: SQLiteEngine, clock: ManualClock) -> AsyncIterator[Coordinator]:
    rules = Rules(engine, clock)
    await rules.create("default", a_rule())
    with rules.coordinator(RULE) as coordinator:
        await coordinator.read()
        yield coordinator
    await rules.close()


class Hungry:
    """A worker whose demand the test sets."""

    def __init__(self, *, wants: bool = True) -> None:
        self.wants = wants

    def wants_samples(self) -> bool:
        return self.wants

    def wake(self) -> None: ...


async def finish(engine: SQLiteEngine, run_id: str, output: str = "{}") -> None:
    await engine.create_run(RunKey("default", run_id), Run(kind=RunKind.RUN_KIND_AGENT, name="weather"))
    end = run_finished()
    end.run_finished.output_json = output
    await engine.append(RunKey("default", run_id), batch_of([run_started(), end], run_id=run_id))


async def test_the_next_worker_has_samples_selected_though_the_last_task_ends_late(
    engine: SQLiteEngine, coordinator: Coordinator, clock: ManualClock
) -> None:
    sampler = Sampler(coordinator, engine, clock)
    with sampler.serving(Hungry(wants=False)):
        await asyncio.sleep(0)
    worker = Hungry(wants=False)
    with sampler.serving(worker):  # the task of the last worker was cancelled, and has not ended
        await finish(engine, "a")
        await asyncio.sleep(0)
        worker.wants = True
        coordinator.notify()

        async def is_selected() -> bool:
            return "a" in coordinator.ledger.samples

        await until(is_selected)


async def test_kept_runs_take_little_memory(engine: SQLiteEngine, coordinator: Coordinator, clock: ManualClock) -> None:
    large = f'"{"x" * 500_000}"'
    for number in range(12):
        await finish(engine, str(number), large)
    sampler = Sampler(coordinator, engine, clock)
    with sampler.serving(Hungry()):

        async def is_caught_up() -> bool:
            return sampler.caught_up

        await until(is_caught_up)
        assert len(coordinator.ledger.samples) == 12
        kept = [number for number in range(12) if sampler.take_run(str(number)) is not None]
        assert kept == [*range(12 - len(kept), 12)]
        assert 5 <= len(kept) <= 8
