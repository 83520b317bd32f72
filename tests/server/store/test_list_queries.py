"""Queries of lists of runs: the same runs as a plain filter in Python, without scans and sorts."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apsw
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.store import filters, listing
from lavant.server.store.port import RunQuery
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import RunFilter

RUNS = 400
NAMES = ("", "a", "ab", "ab*", "abc", "b\U0010ffff", "b\U0010ffffx", "\ud7ff", "\ue000", "c%", "c_")
LIMIT = 7


@dataclass(frozen=True)
class Row:
    """Run in the table, and its position."""

    position: int
    create_ns: int
    run: Run

    def matches(self, wanted: RunFilter) -> bool:
        """Return whether a filter selects the run, by the words of the contract."""
        run = self.run
        return (
            (not wanted.kinds or run.kind in wanted.kinds)
            and (not wanted.states or run.state in wanted.states)
            and (not wanted.names or any(matches_name(name, run.name) for name in wanted.names))
            and all(run.labels.get(key) == value for key, value in wanted.labels.items())
            and wanted.conversation_id in ("", run.conversation_id)
            and wanted.parent_run_id in ("", run.parent_run_id)
            and (not wanted.HasField("created_after") or self.create_ns >= wanted.created_after.ToNanoseconds())
            and (not wanted.HasField("created_before") or self.create_ns < wanted.created_before.ToNanoseconds())
        )


def matches_name(wanted: str, name: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted


def some_rows(chance: random.Random) -> Iterator[Row]:
    """Runs of all kinds, some of them created while the clock was set back, a few at the same position."""
    position = 0
    for number in range(RUNS):
        position += chance.choice((1, 1, 1, 5, 0 if number else 1))
        run = Run(
            run_id=f"run-{number}",
            kind=chance.choices((1, 2), (9, 1))[0],  # type: ignore[arg-type]
            state=chance.choice((1, 2, 10, 10, 10, 11)),  # type: ignore[arg-type]
            name=chance.choice(NAMES),
            labels={key: chance.choice("xyz") for key in chance.choice(("", "k", "kl"))},
            conversation_id=chance.choice(("", "", "c", "d")),
            parent_run_id=chance.choice(("", "", "p")),
        )
        yield Row(position, position - chance.choice((0, 0, 0, 3)), run)


@pytest.fixture(scope="module")
def rows() -> Sequence[Row]:
    return list(some_rows(random.Random(1)))


@pytest.fixture(scope="module")
def connection(rows: Sequence[Row]) -> Iterator[apsw.Connection]:
    """The tables of every engine, with the rows, and others of another tenant."""
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(f"CREATE TABLE runs(id INTEGER PRIMARY KEY, {listing.COLUMNS}, run BLOB)")
        connection.execute(listing.INDEXES)
        for number, (tenant, row) in enumerate((tenant, row) for row in rows for tenant in ("acme", "other")):
            run = row.run
            columns = (run.kind, run.name, run.state, run.conversation_id, run.parent_run_id)
            values = (number, tenant, run.run_id, row.position, *columns, row.create_ns, 0, None)
            connection.execute(
                f"INSERT INTO runs VALUES({', '.join('?' * 13)})",
                (*values, run.SerializeToString()),
            )
            for label in run.labels.items():
                connection.execute("INSERT INTO labels VALUES(?, ?, ?, ?, ?)", (tenant, *label, row.position, number))
        yield connection


def some_filter(chance: random.Random) -> RunFilter:
    def some(values: Sequence[Any], chosen: float = 0.3) -> list[Any]:
        return chance.sample(values, chance.randint(1, len(values) // 2)) if chance.random() < chosen else []

    wanted = RunFilter(
        kinds=some((1, 2)),
        states=some((1, 2, 10, 11)),
        names=some(("a", "ab", "ab*", "a*", "b\U0010ffff*", "\ud7ff*", "c_*", "c*", "*", "z*", "z", "abc")),
        labels={key: chance.choice("xyz") for key in some("kl")},
        conversation_id="".join(some("cd")),
        parent_run_id="".join(some("pq")),
    )
    for name in some(("created_after", "created_before")):
        getattr(wanted, name).FromNanoseconds(chance.randrange(2 * RUNS))
    return wanted


def in_pages(connection: apsw.Connection, wanted: RunFilter) -> list[list[str]]:
    pages: list[list[str]] = []
    before: int | None = None
    while True:
        query = RunQuery(tenant="acme", limit=LIMIT, filter=wanted)
        page = listing.list_runs(connection, query, before, "runs.run", Run.FromString)
        pages.append([run.run_id for run in page.runs])
        before = page.next_position
        if before is None:
            return pages


@pytest.mark.parametrize("windows", [listing.WINDOWS, (3, 20), (1,)], ids=str)
@pytest.mark.parametrize("names_of_prefixes", [100, 1])
def test_lists_hold_what_a_plain_filter_selects(
    connection: apsw.Connection,
    rows: Sequence[Row],
    monkeypatch: pytest.MonkeyPatch,
    windows: tuple[int, ...],
    names_of_prefixes: int,
) -> None:
    monkeypatch.setattr(listing, "WINDOWS", windows)
    monkeypatch.setattr(filters, "_NAMES_OF_PREFIXES", names_of_prefixes)
    chance = random.Random(2)
    found = 0
    for _ in range(300):
        wanted = some_filter(chance)
        pages = in_pages(connection, wanted)
        expected = [row for row in reversed(rows) if row.matches(wanted)]
        listed = [run_id for page in pages for run_id in page]
        positions = {row.run.run_id: row.position for row in rows}
        assert sorted(listed) == sorted(row.run.run_id for row in expected), wanted
        assert [positions[run_id] for run_id in listed] == [row.position for row in expected], wanted
        if windows[0] > RUNS:
            assert all(len(page) >= LIMIT for page in pages[:-1]), wanted
        found += len(listed)
    assert found > 5_000


STATES = {"states": [1, 11]}
LABEL = {"labels": {"k": "x"}}


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "runs_by_age"),
        ({"labels": {"k": "x", "l": "y"}}, "labels"),
        ({"states": [11]}, "runs_by_state"),
        (STATES, "runs_by_state"),
        ({"names": ["a", "ab"]}, "runs_by_name"),
        ({"names": ["a*", "c"]}, "runs_by_name"),
        ({"kinds": [2]}, "runs_by_kind"),
        ({"kinds": [2], **LABEL}, "runs_by_kind"),
        ({"conversation_id": "c"}, "runs_by_conversation"),
        ({"parent_run_id": "p"}, "runs_by_parent"),
        ({"parent_run_id": "p", "conversation_id": "d", **STATES}, "runs_by_conversation"),
        ({"created_after": Timestamp(nanos=100)}, "runs_by_age"),
        ({"created_before": Timestamp(nanos=100)}, "runs_by_age"),
        ({"created_before": Timestamp(nanos=100), **LABEL}, "labels"),
    ],
    ids=str,
)
def test_lists_are_read_from_an_index_in_order(connection: apsw.Connection, wanted: dict[str, Any], index: str) -> None:
    plans = plans_of(connection, RunFilter(**wanted))
    steps = [step for plan in plans for step in plan]
    assert not [step for step in steps if step.startswith("SCAN") and not is_internal(step)], steps
    assert not [step for step in steps if "TEMP B-TREE" in step], steps
    assert any(index in step for step in plans[-1]), plans[-1]


def test_range_of_many_names_is_the_only_one_that_is_sorted(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_NAMES_OF_PREFIXES", 1)
    steps = [step for plan in plans_of(connection, RunFilter(names=["a*", "c"])) for step in plan]
    assert [step for step in steps if "TEMP B-TREE" in step] == ["USE TEMP B-TREE FOR ORDER BY"]


def is_internal(step: str) -> bool:
    """Return whether a step reads rows that an earlier step of the same query made."""
    return any(name in step for name in ("(subquery-", "CONSTANT ROW", "SCAN found"))


def plans_of(connection: apsw.Connection, wanted: RunFilter) -> list[list[str]]:
    """The plan of each statement for the first page of a list."""
    statements: list[tuple[str, Any]] = []

    def trace(_: Any, sql: str, bindings: Any) -> bool:
        statements.append((sql, bindings))
        return True

    connection.exec_trace = trace
    try:
        listing.list_runs(
            connection, RunQuery(tenant="acme", limit=LIMIT, filter=wanted), None, "runs.run", Run.FromString
        )
    finally:
        connection.exec_trace = None
    explained = [connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings).fetchall() for sql, bindings in statements]
    return [[str(step[-1]) for step in plan] for plan in explained]
