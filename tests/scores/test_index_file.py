"""The index's file belongs to one life of a store, and is begun anew whenever it is of no use."""

import stat
from pathlib import Path

import pytest

from lavant.server.scores import schema
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.intake import Intake
from lavant.server.store.port import Opening

FEEDS = {"default": (1 << 144) + 7}


async def fill(path: Path | None, epoch: str = "one") -> None:
    """Make an index that has come some way."""
    index = await ScoreIndex.open(path, epoch)
    await index.take_in(Intake(feeds=FEEDS))
    assert (await index.progress()).feeds == FEEDS
    await index.close()


async def reached(path: Path, epoch: str = "one") -> object:
    """How far the index is that is found there."""
    index = await ScoreIndex.open(path, epoch)
    progress = await index.progress()
    await index.close()
    return progress.feeds


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
    await index.take_in(Intake(feeds=FEEDS))
    await index.close()
    index = await ScoreIndex.open(path, "one", Opening(9, 7))
    assert (await index.progress()).feeds == FEEDS
    await index.close()
    index = await ScoreIndex.open(path, "one", Opening(11, 7))
    assert (await index.progress()).feeds == {}
    await index.close()


async def test_it_is_of_one_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path)
    monkeypatch.setattr(schema, "_VERSION", schema._VERSION + 1)
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
