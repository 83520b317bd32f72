"""Drawing goes on whatever else begins and ends meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lavant.server.evaluation.counter import Counter
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.drawing import Drawer
from lavant.server.evaluation.rules import Rules
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
async def counter(engine: SQLiteEngine, clock: ManualClock) -> AsyncIterator[Counter]:
    desks = Desks(engine, clock)
    await Rules(engine=engine, desks=desks, clock=clock).create("default", a_rule())
    with desks.at(RULE) as counter:
        yield counter
    await desks.close()


async def finish(engine: SQLiteEngine, run_id: str, output: str = "{}") -> None:
    await engine.create_run(RunKey("default", run_id), Run(kind=RunKind.RUN_KIND_AGENT, name="weather"))
    end = run_finished()
    end.run_finished.output_json = output
    await engine.append(RunKey("default", run_id), batch_of([run_started(), end], run_id=run_id))


async def test_the_next_drawing_hears_of_changes_though_the_last_one_ends_late(
    engine: SQLiteEngine, counter: Counter, clock: ManualClock
) -> None:
    wants: list[bool] = []
    drawer = Drawer(counter.desk, engine, clock, lambda: bool(wants))
    last, following = asyncio.create_task(drawer.run()), asyncio.create_task(drawer.run())
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.wait((last,))
    await finish(engine, "a")
    await asyncio.sleep(0)
    wants.append(True)
    counter.desk.tell()

    async def drawn() -> bool:
        return "a" in counter.desk.ledger.samples

    await until(drawn)
    following.cancel()
    await asyncio.wait((following,))


async def test_runs_at_hand_take_little_room(engine: SQLiteEngine, counter: Counter, clock: ManualClock) -> None:
    large = f'"{"x" * 500_000}"'
    for number in range(12):
        await finish(engine, str(number), large)
    drawer = Drawer(counter.desk, engine, clock, lambda: True)
    drawing = asyncio.create_task(drawer.run())

    async def drawn() -> bool:
        return drawer.caught_up

    await until(drawn)
    assert len(counter.desk.ledger.samples) == 12
    at_hand = [number for number in range(12) if drawer.take_run(str(number)) is not None]
    assert at_hand == [*range(12 - len(at_hand), 12)]
    assert 5 <= len(at_hand) <= 8
    drawing.cancel()
    await asyncio.wait((drawing,))
