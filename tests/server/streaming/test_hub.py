"""The tail of a run: what it remembers, what it forgets, and whom it wakes."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.port import Notice
from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.hub import Hub, SharedFrame, Tail
from lavant.v1.run_pb2 import Run
from support.clock import ManualClock
from support.engines import KEY
from support.events import a_run_of, batch_of

BYTES = 10_000
EVENT = b"e" * 1_000


def chunk(first: int, last: int) -> Chunk:
    """Events of a thousand bytes each."""
    count = last - first + 1
    return Chunk.of(first, [31] * count, [EVENT] * count)


def notice(held: Chunk | None = None, *, last: int = 0, sealed: bool = False, deleted: bool = False) -> Notice:
    last = held.last_sequence if held else last
    return Notice(last_sequence=last, sealed=sealed, producer_seen_ns=last, chunk=held, deleted=deleted)


def tail_of(*chunks: Chunk) -> Tail:
    tail = Tail(BYTES)
    for held in chunks:
        tail.observe(notice(held))
    return tail


def spans(found: Iterable[Chunk] | None) -> list[tuple[int, int]] | None:
    return None if found is None else [(held.first_sequence, held.last_sequence) for held in found]


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (0, [(1, 2), (3, 3), (4, 6)]),
        (1, [(1, 2), (3, 3), (4, 6)]),
        (2, [(3, 3), (4, 6)]),
        (3, [(4, 6)]),
        (5, [(4, 6)]),
        (6, None),
        (9, None),
    ],
)
def test_what_comes_after(after: int, found: list[tuple[int, int]] | None) -> None:
    assert spans(tail_of(chunk(1, 2), chunk(3, 3), chunk(4, 6)).after(after)) == found


def test_the_oldest_is_forgotten_first() -> None:
    tail = tail_of(*(chunk(number, number) for number in range(1, 21)))
    assert tail.after(0) is None
    kept = [number for number in range(20) if tail.after(number) is not None]
    assert kept == list(range(20 - len(kept), 20))
    assert len(kept) == BYTES // (len(chunk(1, 1).data) + 512)


def test_the_newest_is_kept_however_large() -> None:
    tail = tail_of(chunk(1, 1), chunk(2, 40))
    assert tail.after(0) is None
    assert spans(tail.after(1)) == [(2, 40)]
    tail.observe(notice(chunk(41, 41)))
    assert tail.after(1) is None
    assert spans(tail.after(40)) == [(41, 41)]


def test_a_gap_makes_it_forget_what_was_before() -> None:
    tail = tail_of(chunk(1, 2), chunk(5, 6))
    assert tail.after(1) is None
    assert tail.after(3) is None
    assert spans(tail.after(4)) == [(5, 6)]
    assert tail.last_sequence == 6


def test_a_change_without_its_events_is_to_be_read_from_the_store() -> None:
    tail = tail_of(chunk(1, 2))
    tail.observe(notice(last=4))
    assert tail.last_sequence == 4
    assert tail.after(2) is None


def test_nothing_goes_back() -> None:
    tail = tail_of(chunk(1, 4))
    tail.observe(notice(last=4, sealed=True))
    tail.observe(notice(last=2))
    assert (tail.last_sequence, tail.sealed, tail.deleted, tail.producer_seen_ns) == (4, True, False, 4)
    tail.observe(notice(last=4, deleted=True))
    assert tail.deleted


def test_newcomers_wake_the_others_only_with_news() -> None:
    woken: list[str] = []
    tail = tail_of(chunk(1, 2))
    tail.readers.add(lambda: woken.append("a"))
    tail.learn(notice(last=2))
    assert woken == []
    tail.learn(notice(last=3))
    tail.learn(notice(last=3, sealed=True))
    assert woken == ["a", "a"]
    tail.observe(notice(last=3))
    assert woken == ["a"] * 3


def test_frames_are_shared_until_the_run_changes() -> None:
    tail, frame = tail_of(chunk(1, 2)), SharedFrame(b"frame", 2, 2, None)
    tail.keep("key", frame)
    assert tail.shared_frame("key") is None  # there is nobody to share it with
    tail.readers |= {lambda: None, lambda: None}
    for number in range(100):
        tail.keep(number, frame)
    assert sum(tail.shared_frame(number) is frame for number in range(100)) == 8
    tail.observe(notice(chunk(3, 3)))
    assert tail.shared_frame(0) is None


async def test_readers_share_a_tail_until_the_last_one_leaves(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    hub, woken = Hub(engine, BYTES), list[str]()

    def first() -> None:
        woken.append("first")
        hub.leave(KEY, tail, first)

    def second() -> None:
        woken.append("second")

    tail = hub.join(KEY, first)
    assert hub.join(KEY, second) is tail
    await engine.create_run(KEY, Run(name="weather"))
    assert woken.count("first") == 1
    before = woken.count("second")
    assert before >= 1  # once more if the snapshot comes after the creation
    await engine.append(KEY, batch_of(a_run_of(4)))
    assert woken.count("first") == 1
    assert woken.count("second") > before
    assert tail.after(0) is not None
    hub.leave(KEY, tail, second)
    again = hub.join(KEY, second)
    assert again is not tail
    assert again.after(0) is None
    assert hub.join(RunKey("acme", "other"), second) is not again
    await engine.close()


async def test_a_run_created_under_a_deleted_ones_id_has_a_tail_of_its_own(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    hub = Hub(engine, BYTES)
    old_woken, new_woken = list[int](), list[int]()

    def wake_old() -> None:
        old_woken.append(1)

    def wake_new() -> None:
        new_woken.append(1)

    await engine.create_run(KEY, Run(name="weather"))
    old = hub.join(KEY, wake_old)
    await engine.append(KEY, batch_of(a_run_of(9)))
    await engine.delete_run(KEY)
    await engine.create_run(KEY, Run(name="weather"))
    new = hub.join(KEY, wake_new)
    await engine.append(KEY, batch_of(a_run_of(5)))
    assert (old.deleted, new.deleted, new.last_sequence) == (True, False, 5)
    hub.leave(KEY, old, wake_old)
    assert hub.join(KEY, wake_old) is new
    await engine.close()
