"""Lists of runs and the feed of changes, put through every engine."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.model import RunKey
from lavant.server.store import listing
from lavant.server.store.port import DELETIONS_KEPT, Engine, RunQuery
from lavant.v1.run_pb2 import Run, RunKind, RunState
from lavant.v1.run_service_pb2 import RunFilter
from support.clock import ManualClock
from support.engines import KEY, created, started
from support.events import a_run_of, batch_of, run_finished, run_started, run_state_changed, text_delta


def named(runs: Sequence[Run]) -> list[str]:
    return [run.run_id for run in runs]


async def listed(engine: Engine, wanted: RunFilter) -> list[str]:
    return named((await engine.list_runs(RunQuery(tenant="acme", limit=100, filter=wanted))).runs)


@pytest.fixture
async def zoo(engine: Engine, clock: ManualClock) -> Engine:
    """Runs that differ, one each second from 1,000 s on, and one of another tenant."""
    settings = {
        "cat": Run(name="pets/cat", labels={"legs": "4", "wild": "no"}),
        "dog": Run(name="pets/dog", labels={"legs": "4"}, conversation_id="talk"),
        "emu": Run(name="farm/emu", labels={"legs": "2"}, parent_run_id="cat"),
        "fox": Run(name="farm*", labels={"legs": "4", "wild": "yes"}, kind=RunKind.RUN_KIND_EVALUATION),
        "gnu": Run(name="farm%_[a]", parent_run_id="cat", conversation_id="talk"),
    }
    for run_id, run in settings.items():
        await created(engine, RunKey("acme", run_id), run)
        clock.advance(1)
    await created(engine, RunKey("other", "ox"), Run(name="pets/cat", labels={"legs": "4"}))
    await engine.append(RunKey("acme", "dog"), batch_of([run_started()]))
    await engine.append(RunKey("acme", "fox"), batch_of([run_started(), run_finished(RunState.RUN_STATE_FAILED)]))
    return engine


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RunFilter(), "gnu fox emu dog cat"),
        (RunFilter(kinds=[RunKind.RUN_KIND_EVALUATION]), "fox"),
        (RunFilter(kinds=[RunKind.RUN_KIND_AGENT]), "gnu emu dog cat"),
        (RunFilter(states=[RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_FAILED]), "fox dog"),
        (RunFilter(states=[RunState.RUN_STATE_CANCELLED]), ""),
        (RunFilter(names=["pets/cat"]), "cat"),
        (RunFilter(names=["pets/*"]), "dog cat"),
        (RunFilter(names=["pets/*", "farm/emu"]), "emu dog cat"),
        (RunFilter(names=["*"]), "gnu fox emu dog cat"),
        (RunFilter(names=["*/cat"]), ""),
        (RunFilter(names=["farm**"]), "fox"),
        (RunFilter(names=["PETS/*"]), ""),
        (RunFilter(names=["farm%_[a]"]), "gnu"),
        (RunFilter(names=["farm%*"]), "gnu"),
        (RunFilter(names=["far[m]*", "far_*", "f%*"]), ""),
        (RunFilter(names=["' OR 1 = 1 --"]), ""),
        (RunFilter(labels={"legs": "4"}), "fox dog cat"),
        (RunFilter(labels={"legs": "4", "wild": "no"}), "cat"),
        (RunFilter(labels={"legs": "2", "wild": "no"}), ""),
        (RunFilter(conversation_id="talk"), "gnu dog"),
        (RunFilter(parent_run_id="cat"), "gnu emu"),
        (RunFilter(parent_run_id="cat", conversation_id="talk"), "gnu"),
        (RunFilter(labels={"legs": "4"}, states=[RunState.RUN_STATE_QUEUED], names=["pets/*"]), "cat"),
    ],
)
async def test_runs_are_filtered(zoo: Engine, wanted: RunFilter, expected: str) -> None:
    assert await listed(zoo, wanted) == expected.split()


async def test_system_runs_are_found_unless_left_out(zoo: Engine) -> None:
    key = RunKey("acme", "lavant.owl")
    await created(zoo, key, Run(name="pets/owl", labels={"legs": "2"}))
    await created(zoo, RunKey("acme", "lavant-like"), Run(name="pets/owl"))
    for wanted, expected in (
        (RunFilter(), ["lavant-like", "gnu", "fox", "emu", "dog", "cat"]),
        (RunFilter(names=["pets/owl"]), ["lavant-like"]),
        (RunFilter(labels={"legs": "2"}), ["emu"]),
    ):
        callers = RunQuery(tenant="acme", limit=2, filter=wanted, system_runs=False)
        found, before = [], None
        while True:
            page = await zoo.list_runs(callers, before)
            found += named(page.runs)
            if (before := page.next_position) is None:
                break
        assert found == expected
        changes, reached = await zoo.list_changes(replace(callers, limit=100))
        assert sorted(named([change.run for change in changes])) == sorted(expected)
        assert reached == await zoo.last_change("acme"), "what is left out was examined"
        assert key.run_id in await listed(zoo, wanted)


async def test_runs_are_filtered_by_their_creation(zoo: Engine, clock: ManualClock) -> None:
    emu = (await zoo.get_run(RunKey("acme", "emu"))).create_time
    assert await listed(zoo, RunFilter(created_after=emu)) == ["gnu", "fox", "emu"]
    assert await listed(zoo, RunFilter(created_before=emu)) == ["dog", "cat"]
    far = RunFilter()
    far.created_before.seconds = 253_402_300_799
    far.created_after.seconds = -62_135_596_800
    assert len(await listed(zoo, far)) == 5


async def test_pages_hold_each_run_once_though_runs_are_created_meanwhile(zoo: Engine) -> None:
    query = RunQuery(tenant="acme", limit=2)
    page = await zoo.list_runs(query)
    found = named(page.runs)
    while page.next_position is not None:
        await created(zoo, RunKey("acme", f"later-{len(found)}"))
        page = await zoo.list_runs(query, page.next_position)
        found += named(page.runs)
    assert found == ["gnu", "fox", "emu", "dog", "cat"]


async def test_a_full_last_page_is_the_last(zoo: Engine) -> None:
    assert (await zoo.list_runs(RunQuery(tenant="acme", limit=5))).next_position is None
    assert (await zoo.list_runs(RunQuery(tenant="nobody", limit=5))).next_position is None


async def test_the_feed_has_creations_and_changes_of_state(zoo: Engine) -> None:
    query = RunQuery(tenant="acme", limit=100)
    changes, position = await zoo.list_changes(query)
    assert named([change.run for change in changes]) == ["cat", "emu", "gnu", "dog", "fox"]
    assert position == changes[-1].position
    assert await zoo.list_changes(query, position) == ([], position)
    await zoo.append(RunKey("acme", "dog"), batch_of([run_state_changed()], first=2))
    changes, position = await zoo.list_changes(query, position)
    assert [(change.run.run_id, change.run.state) for change in changes] == [("dog", 3)]


async def test_the_feed_moves_past_what_does_not_match(zoo: Engine) -> None:
    query = RunQuery(tenant="acme", limit=100, filter=RunFilter(names=["nothing"]))
    changes, position = await zoo.list_changes(query)
    assert changes == []
    assert position > 0
    assert await zoo.list_changes(query, position) == ([], position)


async def test_the_feed_comes_in_pages(zoo: Engine) -> None:
    found: list[str] = []
    position = 0
    while True:
        changes, position = await zoo.list_changes(RunQuery(tenant="acme", limit=2), position)
        if not changes:
            break
        found += named([change.run for change in changes])
    assert found == ["cat", "emu", "gnu", "dog", "fox"]


async def test_a_span_of_the_feed_ends_where_asked(zoo: Engine) -> None:
    query = RunQuery(tenant="acme", limit=2)
    assert await zoo.last_change("nobody", 7) == 7
    until = await zoo.last_change("acme")
    assert until == (await zoo.list_changes(RunQuery(tenant="acme", limit=100)))[1]
    await created(zoo, RunKey("acme", "later"))
    found: list[str] = []
    position = 0
    while position != until:
        changes, position = await zoo.list_changes(query, position, until)
        found += named([change.run for change in changes])
    assert found == ["cat", "emu", "gnu", "dog", "fox"]
    assert await zoo.list_changes(query, until, until) == ([], until)
    nothing = RunQuery(tenant="acme", limit=2, filter=RunFilter(names=["nothing"]))
    assert await zoo.list_changes(nothing, 0, until) == ([], until)
    newest = await zoo.last_change("acme", until)
    assert newest != until
    changes, _ = await zoo.list_changes(query, until, newest)
    assert named([change.run for change in changes]) == ["later"]


async def in_pages(engine: Engine, query: RunQuery) -> list[list[str]]:
    """The runs of each page."""
    page = await engine.list_runs(query)
    found = [named(page.runs)]
    while page.next_position is not None:
        page = await engine.list_runs(query, page.next_position)
        found.append(named(page.runs))
    return found


async def feed_in_pages(engine: Engine, query: RunQuery) -> list[list[str]]:
    """The runs of each page of the feed, until it stands still."""
    found: list[list[str]] = []
    before, (changes, position) = 0, await engine.list_changes(query)
    while position != before:
        assert position > before
        found.append(named([change.run for change in changes]))
        before, (changes, position) = position, await engine.list_changes(query, position)
    assert changes == []
    return found


async def test_a_page_holds_about_a_mebibyte_and_at_least_one_run(engine: Engine) -> None:
    sizes = {"a": 300_000, "b": 300_000, "c": 1_000_000, "d": 600_000, "e": 300_000}
    for run_id, size in sizes.items():
        finished = run_finished()
        finished.run_finished.output_json = f'"{"x" * size}"'
        key = await created(engine, RunKey("acme", run_id), Run(name="weather" * (20_000 if run_id == "c" else 1)))
        await engine.append(key, batch_of([run_started(), finished]))
    query = RunQuery(tenant="acme", limit=100)
    assert await in_pages(engine, query) == [["e", "d"], ["c"], ["b", "a"]]
    assert await feed_in_pages(engine, query) == [["a", "b"], ["c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("wanted", "feed"),
    [
        (RunFilter(), "cat emu,gnu dog,fox"),
        (RunFilter(names=["pets/cat"]), "cat,,"),
        (RunFilter(labels={"legs": "4", "wild": "yes"}), ",,fox"),
        (RunFilter(names=["nothing*"]), ",,"),
    ],
)
async def test_page_of_the_feed_examines_a_bounded_number_of_runs(
    zoo: Engine, monkeypatch: pytest.MonkeyPatch, wanted: RunFilter, feed: str
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 2)
    query = RunQuery(tenant="acme", limit=100, filter=wanted)
    assert await feed_in_pages(zoo, query) == [page.split() for page in feed.split(",")]


@pytest.mark.parametrize(
    ("wanted", "pages"),
    [
        (RunFilter(), "gnu fox emu dog cat"),  # nothing is tested, so nothing is examined in vain
        (RunFilter(labels={"legs": "4"}), "fox dog cat"),
        (RunFilter(labels={"legs": "4"}, kinds=[RunKind.RUN_KIND_AGENT], states=[RunState.RUN_STATE_QUEUED]), "cat,"),
        (RunFilter(kinds=[RunKind.RUN_KIND_AGENT], created_after=Timestamp(seconds=1)), "gnu emu dog,cat"),
        (RunFilter(created_after=Timestamp(seconds=1)), "gnu fox emu,dog cat"),
        (RunFilter(names=["*a*", "f*", "n*"], states=[RunState.RUN_STATE_QUEUED]), "gnu emu,"),
    ],
)
async def test_page_of_a_list_examines_a_bounded_number_of_runs(
    zoo: Engine, monkeypatch: pytest.MonkeyPatch, wanted: RunFilter, pages: str
) -> None:
    monkeypatch.setattr(listing, "WINDOWS", (1, 2))
    query = RunQuery(tenant="acme", limit=100, filter=wanted)
    assert await in_pages(zoo, query) == [page.split() for page in pages.split(",")]


async def test_watchers_of_the_feed_are_called_for_what_shows_in_it(engine: Engine) -> None:
    calls: list[int] = []
    others: list[int] = []
    watch = engine.watch_changes("acme", lambda: calls.append(1))
    engine.watch_changes("other", lambda: others.append(1))
    await started(engine)
    assert len(calls) == 2
    await engine.append(KEY, batch_of([text_delta()], first=3))
    await engine.append(KEY, batch_of())
    assert len(calls) == 2
    await engine.append(KEY, batch_of([run_finished()], first=4))
    assert len(calls) == 3
    watch.close()
    await created(engine, RunKey("acme", "second"))
    assert (len(calls), len(others)) == (3, 0)


async def ended(engine: Engine, run_id: str) -> RunKey:
    """Create a run that has ended."""
    key = await created(engine, RunKey("acme", run_id))
    await engine.append(key, batch_of(a_run_of(4)))
    return key


async def test_deletions_are_listed_between_positions(engine: Engine) -> None:
    keys = [await ended(engine, name) for name in ("one", "two", "three")]
    calls: list[int] = []
    engine.watch_changes("acme", lambda: calls.append(1))
    positions = [await engine.last_change("acme")]
    for key in keys[:2]:
        await engine.delete_run(key)
        positions.append(await engine.last_change("acme", positions[-1]))
    assert len(calls) == 2
    assert await engine.list_changes(RunQuery(tenant="acme", limit=100), positions[0]) == ([], positions[2])
    await created(engine, keys[0])  # an id may be used again
    spans = [*pairwise(positions), (positions[0], positions[2]), (positions[2], positions[2])]
    found = [list(await engine.list_deletions("acme", *span)) for span in spans]
    assert found[:2] == [["one"], ["two"]]
    assert sorted(found[2]) == ["one", "two"]
    assert found[3] == []
    assert list(await engine.list_deletions("other", positions[0], positions[2])) == []


async def test_deletions_are_forgotten_after_their_time(engine: Engine, clock: ManualClock) -> None:
    first = await ended(engine, "first")
    start = await engine.last_change("acme")
    await engine.delete_run(first)
    clock.advance(DELETIONS_KEPT + 1)
    second = await ended(engine, "second")
    await engine.delete_run(second)
    later = await engine.last_change("acme", start)
    found = list(await engine.list_deletions("acme", start, later))
    assert found[-1] == "second"
    assert len(found) == 1 or engine.opening is None  # streams of their own forget each on its own
