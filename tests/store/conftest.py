"""Every test that asks for `engine` is run with each engine there is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine
from support.clock import ManualClock


async def _open_sqlite(folder: Path, clock: ManualClock) -> Engine:
    return await SQLiteEngine.open(folder / "lavant.db", clock)


_ENGINES: dict[str, Callable[[Path, ManualClock], Awaitable[Engine]]] = {"sqlite": _open_sqlite}


@pytest.fixture(params=_ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Engine]:
    engine = await _ENGINES[request.param](tmp_path, clock)
    yield engine
    await engine.close()
