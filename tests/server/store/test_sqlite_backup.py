"""Backups of a SQLite store and restores from them, on real files."""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Holder, RunQuery
from lavant.server.store.sqlite import SQLiteEngine, StoreDamaged, StoreLocked, StoreUnusable, backup
from lavant.server.store.sqlite.backup import back_up, restore
from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run, RunState
from support.clock import ManualClock
from support.engines import KEY, created, pending_cancel, refused, started, stored
from support.events import a_run_of, batch_of, custom, noise, run_finished, run_started, run_state_changed, text_delta

# ruff: noqa: ASYNC240 - nothing else runs here while a file is read

SEEDS = range(150)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "lavant.db"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "saved.db"


@pytest.fixture
async def opened(path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    engine = await SQLiteEngine.open(path, clock)
    yield engine
    await engine.close()


@pytest.fixture
async def filled(opened: SQLiteEngine) -> SQLiteEngine:
    """A store with runs in many states: labelled, ended, cancelled, abandonable, deleted."""
    settings = Run(name="weather", labels={"team": "search", "tier": "1"}, conversation_id="c", parent_run_id="p")
    settings.producer_timeout.FromSeconds(60)
    await started(opened, run=settings)
    await opened.cancel_run(KEY, "enough")
    for name in ("queued", "waiting", "failed", "deleted"):
        await created(opened, RunKey("acme", name))
    waiting = [run_started(), run_state_changed(RunState.RUN_STATE_INPUT_REQUIRED)]
    await opened.append(RunKey("acme", "waiting"), batch_of(waiting, run_id="waiting"))
    failed = [run_started(), run_finished(RunState.RUN_STATE_FAILED)]
    await opened.append(RunKey("acme", "failed"), batch_of(failed, run_id="failed"))
    await opened.append(RunKey("acme", "deleted"), batch_of(a_run_of(4), run_id="deleted"))
    await opened.delete_run(RunKey("acme", "deleted"))
    large = [run_started(), *(custom(value_json=f'"{noise(30_000 + number)}"') for number in range(8))]
    await created(opened, RunKey("globex", "run"))
    await opened.append(RunKey("globex", "run"), batch_of(large))
    return opened


async def content(engine: SQLiteEngine) -> dict[RunKey, tuple[Run, list[Event], str | None]]:
    """All runs, with their logs and pending cancels."""
    found = {}
    for tenant in ("acme", "globex"):
        page = await engine.list_runs(RunQuery(tenant=tenant, limit=100))
        for key in (RunKey(tenant, run.run_id) for run in page.runs):
            found[key] = (await engine.get_run(key), await stored(engine, key), await pending_cancel(engine, key))
    return found


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def test_a_restored_store_holds_what_was_backed_up(
    filled: SQLiteEngine, path: Path, saved: Path, tmp_path: Path, clock: ManualClock
) -> None:
    before = await content(filled)
    contents = back_up(path, saved)
    assert contents == (5, 2 + 0 + 2 + 2 + 9, saved.stat().st_size)
    assert saved.stat().st_mode & 0o777 == 0o600
    copy = tmp_path / "copy" / "lavant.db"
    assert restore(saved, copy) == (contents, None)
    assert names(copy.parent) == {"lavant.db", "lavant.db.lock"}
    assert copy.stat().st_mode & 0o777 == 0o600
    again = await SQLiteEngine.open(copy, clock)
    assert await content(again) == before
    await again.close()


async def test_a_backup_needs_no_file_beside_it(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    back_up(path, saved)
    assert {name for name in names(saved.parent) if name.startswith("saved")} == {"saved.db"}
    assert saved.read_bytes()[18:20] == b"\x01\x01"


async def test_a_store_without_a_server_is_left_as_it_is(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    abandoned = saved.with_name("abandoned.db")
    for suffix in ("", "-wal"):  # what a server leaves that is killed: what it wrote last is in the log alone
        shutil.copyfile(f"{path}{suffix}", f"{abandoned}{suffix}")
    before = [Path(f"{abandoned}{suffix}").read_bytes() for suffix in ("", "-wal")]
    assert back_up(abandoned, saved).events == 15
    assert [Path(f"{abandoned}{suffix}").read_bytes() for suffix in ("", "-wal")] == before


async def test_what_is_written_meanwhile_is_neither_waited_for_nor_copied(
    filled: SQLiteEngine, path: Path, saved: Path, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await content(filled)
    loop = asyncio.get_running_loop()
    appended: list[int] = []

    async def append() -> None:
        number = 3 + len(appended)
        appended.append((await filled.append(KEY, batch_of([text_delta("x" * 9_000)], first=number))).last_sequence)

    def meanwhile(name: str) -> None:
        if (
            name == "during_backup" and len(appended) < 500
        ):  # should the copy start again after each of them, let it come to an end
            asyncio.run_coroutine_threadsafe(append(), loop).result()

    monkeypatch.setattr(backup, "failpoint", meanwhile)
    monkeypatch.setattr(backup, "_PAGES_AT_ONCE", 1)
    contents = await asyncio.to_thread(back_up, path, saved)
    assert appended == list(range(3, 3 + contents.size // 4096))  # one for each page: none was copied twice
    restore(saved, tmp_path / "copy.db")
    again = await SQLiteEngine.open(tmp_path / "copy.db", clock)
    assert await content(again) == before
    await again.close()


async def test_a_restored_store_begins_a_new_life(
    filled: SQLiteEngine, path: Path, saved: Path, clock: ManualClock
) -> None:
    back_up(path, saved)
    identity = filled.identity
    place = ConsumerKey(KEY, "ui")
    await filled.close()
    for _ in range(3):  # openings that the backup does not know of
        lively = await SQLiteEngine.open(path, clock)
        lease = await lively.leases.acquire(place, Holder(session_id="s", attempt=1), lambda: None)
        await lively.close()
    restore(saved, path, force=True)
    again = await SQLiteEngine.open(path, clock)
    assert again.identity.epoch != identity.epoch
    assert again.identity.keys == identity.keys
    rival = await again.leases.acquire(place, Holder(session_id="t", attempt=1), lambda: None)
    assert rival.fence > lease.fence
    await again.close()


async def test_producers_go_on_behind_what_was_backed_up(
    opened: SQLiteEngine, path: Path, saved: Path, clock: ManualClock
) -> None:
    await started(opened)
    batches = [batch_of([text_delta(f"{number}")], first=number) for number in range(3, 7)]
    copies = [batch_of(batch.events, first=batch.first_producer_sequence) for batch in batches]
    receipts = [await opened.append(KEY, batch) for batch in batches[:2]]
    back_up(path, saved)
    receipts += [await opened.append(KEY, batch) for batch in batches[2:]]
    await opened.close()
    restore(saved, path, force=True)
    again = await SQLiteEngine.open(path, clock)
    with refused("PRODUCER_GAP") as gap:
        await again.append(KEY, batch_of([text_delta()], first=7))
    assert gap.value.detail == ProducerGap(expected_producer_sequence=5)
    answers = [await again.append(KEY, batch) for batch in copies]
    assert [(answer.first_sequence, answer.duplicate) for answer in answers] == [
        (receipt.first_sequence, number < 5) for number, receipt in enumerate(receipts, 3)
    ]
    assert [event.sequence for event in await stored(again)] == list(range(1, 7))
    await again.close()


async def test_the_store_before_is_kept_aside_whole(
    filled: SQLiteEngine, path: Path, saved: Path, clock: ManualClock
) -> None:
    back_up(path, saved)
    await filled.append(KEY, batch_of([text_delta()], first=3))
    dead = saved.with_name("dead.db")
    for suffix in ("", "-wal", "-shm"):
        shutil.copyfile(f"{path}{suffix}", f"{dead}{suffix}")
    with pytest.raises(StoreUnusable, match=r"dead\.db exists; .* --force"):
        restore(saved, dead)
    aside = restore(saved, dead, force=True).kept_aside
    assert aside is not None
    assert {name for name in names(dead.parent) if name.startswith("dead")} == {
        *(dead.name, f"{dead.name}.lock"),
        *(aside.name, f"{aside.name}-wal"),
    }
    for file, events in ((dead, 2), (aside, 3)):
        engine = await SQLiteEngine.open(file, clock)
        assert len(await stored(engine)) == events
        await engine.close()


async def test_a_log_that_a_store_left_is_not_taken_for_the_new_one_s(
    filled: SQLiteEngine, path: Path, saved: Path
) -> None:
    back_up(path, saved)
    copy = saved.with_name("copy.db")
    shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    with pytest.raises(StoreUnusable, match=r"copy\.db-wal exists"):
        restore(saved, copy)


async def test_a_store_in_use_is_not_restored(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    back_up(path, saved)
    with pytest.raises(StoreLocked, match="in use by another process"):
        restore(saved, path, force=True)
    assert len(await stored(filled)) == 2
    with pytest.raises(StoreUnusable, match="is a store in use, not a backup"):
        restore(path, saved.with_name("copy.db"))


async def test_a_destination_that_is_taken_is_refused(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    other = saved.with_name("other.db")
    other.symlink_to(path)
    for destination in (path, other, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}.lock")):
        with pytest.raises(StoreUnusable, match="belongs to a store"):
            back_up(path, destination, force=True)
    with pytest.raises(StoreUnusable, match="is a folder"):
        back_up(path, saved.parent, force=True)
    with pytest.raises(StoreUnusable, match="is not a file"):
        back_up(path, Path(os.devnull), force=True)
    saved.write_text("an earlier backup")
    with pytest.raises(StoreUnusable, match=r"saved\.db exists; .* --force"):
        back_up(path, saved)
    assert saved.read_text() == "an earlier backup"
    assert back_up(path, saved, force=True).runs == 5
    assert len(await stored(filled)) == 2


async def test_a_hard_link_to_the_store_is_not_written_over(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    await filled.close()
    saved.hardlink_to(path)
    with pytest.raises(StoreUnusable, match="belongs to a store"):
        back_up(path, saved, force=True)


async def test_two_backups_to_one_destination_do_not_mix(
    filled: SQLiteEngine, path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[BaseException] = []

    def meanwhile(name: str) -> None:
        with pytest.raises(StoreLocked, match="is being written by another process") as caught:
            back_up(path, saved)
        refusals.append(caught.value)

    monkeypatch.setattr(backup, "failpoint", meanwhile)
    assert back_up(path, saved).runs == 5
    assert len(refusals) == 1


async def test_what_is_no_store_is_not_backed_up(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(StoreUnusable, match="there is no store at"):
        back_up(tmp_path / "nowhere.db", saved)
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE meta(name, value)")
    connection.close()
    with pytest.raises(StoreDamaged, match="its tables are not those that were created"):
        back_up(other, saved)
    text = tmp_path / "text.db"
    text.write_bytes(b"These are not the bytes of a database. " * 100)
    with pytest.raises(StoreDamaged, match="not a database"):
        back_up(text, saved)
    assert names(tmp_path) == {"other.db", "text.db"}


async def test_a_damaged_store_gives_no_backup(
    filled: SQLiteEngine, path: Path, saved: Path, clock: ManualClock
) -> None:
    await filled.close()
    with closing(apsw.Connection(str(path))) as connection:
        part: Any = connection.execute("SELECT max(substr(events, 50, 40)) FROM batches WHERE length(events) > 90").get
    data = path.read_bytes()
    assert data.count(part) == 1
    path.write_bytes(data.replace(part, part[::-1]))
    with pytest.raises(StoreDamaged, match=r"lavant\.db is damaged \(a stored batch .*no other was made"):
        back_up(path, saved)
    assert names(saved.parent) == {"store"}


async def restored_or_refused(damaged: Path, store: Path, clock: ManualClock) -> dict[RunKey, Any] | None:
    """What a store holds that is made from a damaged backup; None: it was refused, and nothing is left."""
    try:
        restore(damaged, store)
    except StoreDamaged as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith(f"{damaged} is damaged (")
        assert refusal.endswith("); restore from another backup")
        assert "\n" not in refusal
        assert names(store.parent) == {"lavant.db.lock"}
        return None
    engine = await SQLiteEngine.open(store, clock)
    found = await content(engine)
    await engine.close()
    shutil.rmtree(store.parent)
    return found


async def test_a_bit_that_flips_is_seen_wherever_it_matters(
    filled: SQLiteEngine, path: Path, saved: Path, tmp_path: Path, clock: ManualClock
) -> None:
    before = await content(filled)
    back_up(path, saved)
    data = saved.read_bytes()
    damaged = tmp_path / "damaged.db"
    refusals = 0
    for seed in SEEDS:
        dice = random.Random(seed)
        flipped = bytearray(data)
        flipped[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        damaged.write_bytes(flipped)
        found = await restored_or_refused(damaged, tmp_path / "copy" / "lavant.db", clock)
        refusals += found is None
        assert found in (None, before), f"seed {seed}"
    assert refusals > len(SEEDS) // 2


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.5, 0.99, 1 - 1e-9])
async def test_a_truncated_backup_is_refused(
    filled: SQLiteEngine, path: Path, saved: Path, tmp_path: Path, clock: ManualClock, part: float
) -> None:
    back_up(path, saved)
    os.truncate(saved, int(saved.stat().st_size * part))
    assert await restored_or_refused(saved, tmp_path / "copy" / "lavant.db", clock) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("DELETE FROM batches WHERE id & 4294967295 = 9", "run run lacks events from 1 on"),
        ("DELETE FROM runs WHERE run_id = 'failed'", "there are events of no run"),
        ("DELETE FROM labels WHERE key = 'team'", "run run cannot be found by its label team"),
        ("INSERT INTO labels VALUES('acme', 'a', 'b', 1, 1)", "there are labels of no run"),
        (
            "UPDATE runs SET state = 10 WHERE run_id = 'waiting'",
            "run waiting is listed with another state than its log has",
        ),
        (
            "UPDATE runs SET seen_ns = seen_ns + 1 WHERE run_id = 'waiting'",
            "run waiting is listed with another state than its log has",
        ),
        ("UPDATE runs SET created = 1 WHERE id = 1", "run run is listed with another state than its log has"),
        ("UPDATE runs SET log = run WHERE run_id = 'waiting'", "a stored run fails its checksum"),
        ("UPDATE meta SET value = 'other' WHERE name = 'epoch'", "its meta table fails its checksum"),
        ("DROP INDEX runs_by_age", "its tables are not those that were created"),
    ],
)
async def test_a_backup_that_was_changed_is_refused(
    filled: SQLiteEngine, path: Path, saved: Path, tmp_path: Path, change: str, finding: str
) -> None:
    back_up(path, saved)
    connection = apsw.Connection(str(saved))
    connection.execute(change)
    connection.close()
    with pytest.raises(StoreDamaged) as caught:
        restore(saved, tmp_path / "copy.db")
    assert f"({finding})" in str(caught.value)


async def test_an_index_that_was_changed_is_refused(filled: SQLiteEngine, path: Path, saved: Path) -> None:
    back_up(path, saved)
    connection = apsw.Connection(str(saved))
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs_by_change'").get
    size = connection.pragma("page_size")
    connection.close()
    data = bytearray(saved.read_bytes())
    found = data.index(b"acme", (root - 1) * size, root * size)
    data[found : found + 4] = b"acmf"
    saved.write_bytes(data)
    with pytest.raises(StoreDamaged, match="missing from index runs_by_change"):
        restore(saved, saved.with_name("copy.db"))
