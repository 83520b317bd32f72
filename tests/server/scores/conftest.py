"""Every test that asks for `engine` is run with each engine there is; `index` and `follower` read from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.store.jetstream import JetStreamEngine
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from support.clock import ManualClock
from support.nats import fresh_location, without_streams


@pytest.fixture(params=["sqlite", "jetstream"])
async def engine(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Engine]:
    if request.param == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path")
        file = await SQLiteEngine.open(folder / "lavant.db", clock)
        yield file
        await file.close()
        return
    location = fresh_location([request.getfixturevalue("nats")])
    async with without_streams(location):
        shared = await JetStreamEngine.open(location, clock)
        yield shared
        await shared.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the index is."""
    return tmp_path / "lavant.db.scores"


@pytest.fixture
async def index(path: Path) -> AsyncIterator[ScoreIndex]:
    opened = await ScoreIndex.open(path, "epoch")
    yield opened
    await opened.close()


@pytest.fixture
async def follower(engine: Engine, index: ScoreIndex, clock: ManualClock) -> AsyncIterator[Follower]:
    async with Follower(engine, index, clock) as following:
        yield following
