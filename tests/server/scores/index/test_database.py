"""The file of an index belongs to one epoch of a store, and is rebuilt whenever it is of no use."""

import stat
from pathlib import Path

import pytest

from lavant.server.scores.index import database
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import Intake, read_positions, take_in
from lavant.server.store.port import Opening

FEEDS = {"default": (1 << 144) + 7}


async def fill(path: Path | None, epoch: str = "one") -> None:
    """Create an index that has read some logs."""
    index = await ScoreIndex.open(path, epoch)
    await index.write(take_in, Intake(feeds=FEEDS))
    assert (await index.write(read_positions)).feeds == FEEDS
    await index.close()


async def reached(path: Path, epoch: str = "one") -> object:
    """Return the positions in feeds of the index in a file."""
    index = await ScoreIndex.open(path, epoch)
    positions = await index.write(read_positions)
    await index.close()
    return positions.feeds


def mode(path: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, content: bytes) -> None:
    """Put something in the index's place."""
    path.write_bytes(content)


def damage(path: Path) -> None:
    """Wipe some pages."""
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 3] = bytes(4096 * 2)
    path.write_bytes(content)


async def test_it_outlives_the_process_and_nobody_else_may_read_it(path: Path) -> None:
    await fill(path)
    assert mode(path) == 0o600
    assert await reached(path) == FEEDS


async def test_it_is_of_one_epoch(path: Path) -> None:
    await fill(path)
    assert await reached(path, "two") == {}
    assert await reached(path, "one") == {}


async def test_it_is_of_the_last_opening_of_its_store(path: Path) -> None:
    """A store that was opened without it, or a copy that was put in the store's place, may hold other scores."""
    index = await ScoreIndex.open(path, "one", Opening(7, 5))
    await index.write(take_in, Intake(feeds=FEEDS))
    await index.close()
    index = await ScoreIndex.open(path, "one", Opening(9, 7))
    assert (await index.write(read_positions)).feeds == FEEDS
    await index.close()
    index = await ScoreIndex.open(path, "one", Opening(11, 7))
    assert (await index.write(read_positions)).feeds == {}
    await index.close()


async def test_it_is_of_one_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path)
    monkeypatch.setattr(database, "_VERSION", database._VERSION + 1)
    assert await reached(path) == {}


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100], ids=["empty", "strange"])
async def test_what_is_no_index_is_replaced(path: Path, content: bytes) -> None:
    write(path, content)
    await fill(path)
    assert await reached(path) == FEEDS


async def test_a_damaged_one_is_replaced(path: Path) -> None:
    await fill(path)
    damage(path)
    assert await reached(path) == {}


async def test_without_a_path_it_goes_with_the_process() -> None:
    await fill(None)
    await fill(None)
