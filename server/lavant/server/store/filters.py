"""Filters of runs as SQL: the tests of a run, and the index entries of the runs that pass them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract.limits import OWN_RUNS
from lavant.server.store.port import RunQuery
from lavant.server.store.restrictions import Restriction
from lavant.v1.run_service_pb2 import RunFilter

INT64_MAX = 2**63 - 1
_LAST_CODE_POINT, _FIRST_SURROGATE, _AFTER_SURROGATES = 0x10FFFF, 0xD800, 0xE000
_NAMES_OF_PREFIXES = 100  # prefixes that match more names are read as ranges, whose entries must be sorted
# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
# Each step seeks the next name, however many runs have it.
_NAMES = """WITH RECURSIVE found(name) AS (
        SELECT min(name) FROM runs WHERE tenant = ?1 AND name >= ?2 AND name < ?3 AND name <> ''
        UNION ALL SELECT (SELECT min(name) FROM runs WHERE tenant = ?1 AND name > found.name AND name < ?3
            AND name <> '') FROM found WHERE found.name IS NOT NULL)
    SELECT name FROM found WHERE name IS NOT NULL LIMIT ?4"""
_LABEL = """EXISTS (SELECT 1 FROM labels AS other WHERE other.tenant = :tenant AND other.key = {key}
    AND other.value = {value} AND other.created = {{created}} AND other.run = {{run}})"""


class Entries(NamedTuple):
    """Entries of one index, of the table `runs` or `labels`: in the order of lists unless they are a range."""

    table: str
    where: str
    is_ordered: bool = True

    def positions(self) -> str:
        """Return the query of their positions alone."""
        return f"SELECT created FROM {self.table} WHERE {self.where} AND created < :before AND created >= :after"

    def runs(self, columns: str, others: Iterable["Condition"]) -> str:
        """Return the query of the entries' runs, with other conditions."""
        of_labels = self.table == "labels"
        created, run = ("labels.created", "labels.run") if of_labels else ("runs.created", "runs.id")
        join = " CROSS JOIN runs ON runs.id = labels.run" if of_labels else ""
        tests = [self.where, f"{created} < :before", f"{created} >= :after"]
        tests += [condition.test.format(created=created, run=run) for condition in others]
        return f"SELECT {created} AS created, {columns} FROM {self.table}{join} WHERE {' AND '.join(tests)}"


class Condition(NamedTuple):
    """Condition of a filter: the test of one run, and the sources of all runs that pass it; empty: there are none.

    A test names its run by placeholders: an entry of `labels` fails it before its run is read.
    """

    test: str
    sources: Sequence[Entries] = ()

    @property
    def is_ordered(self) -> bool:
        """Whether the entries of all sources are in the order of lists."""
        return all(source.is_ordered for source in self.sources)


BY_AGE = Condition("TRUE", [Entries("runs INDEXED BY runs_by_age", "runs.tenant = :tenant")])
CALLERS_RUNS = Condition(f"substr(runs.run_id, 1, {len(OWN_RUNS)}) <> '{OWN_RUNS}'")  # nearly all runs pass it


class Filter:
    """Conditions of a query, and the values that are bound in them by name."""

    def __init__(self, query: RunQuery, connection: apsw.Connection | None = None) -> None:
        """Translate a query; with a connection, prefixes become the names that they match, if those are few."""
        wanted = query.filter
        self.values: dict[str, Any] = {"tenant": query.tenant}
        self.conditions: list[Condition] = []
        self._add_settings(wanted, connection)
        if query.within is not None:
            self._add_settings(query.within, connection)
            self._add_run_ids(query.within.run_ids)
        if query.within is not None or not query.system_runs:
            self.conditions.append(CALLERS_RUNS)
        if wanted.parent_run_id:
            self._add("parent", "parent_run_id", [wanted.parent_run_id])
        if wanted.states:
            self._add("state", "state", set(wanted.states))
        if wanted.kinds:
            self._add("kind", "kind", set(wanted.kinds))
        if wanted.HasField("created_after"):
            self.conditions.append(Condition(f"runs.create_ns >= {self._bind(nanoseconds(wanted.created_after))}"))
        if wanted.HasField("created_before"):
            self.conditions.append(Condition(f"runs.create_ns < {self._bind(nanoseconds(wanted.created_before))}"))

    def _add_settings(self, wanted: RunFilter | Restriction, connection: apsw.Connection | None) -> None:
        """Add what filters and restrictions have in common."""
        for key, value in wanted.labels.items():
            bound = {"key": self._bind(key), "value": self._bind(value)}
            where = "labels.tenant = :tenant AND labels.key = {key} AND labels.value = {value}".format(**bound)
            self.conditions.append(Condition(_LABEL.format(**bound), [Entries("labels", where)]))
        if wanted.conversation_id:
            self._add("conversation", "conversation_id", [wanted.conversation_id])
        if wanted.names:
            self._add_names(wanted.names, connection)

    def _add_run_ids(self, run_ids: Iterable[str]) -> None:
        """Add the condition that a run is one of some, if any."""
        if values := [self._bind(run_id) for run_id in run_ids]:
            entries = [Entries("runs", f"runs.tenant = :tenant AND runs.run_id = {value}") for value in values]
            self.conditions.append(Condition(f"runs.run_id IN ({', '.join(values)})", entries))

    def _bind(self, value: Any) -> str:
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _add(self, index: str, column: str, wanted: Iterable[Any], ranges: Iterable[tuple[Any, Any]] = ()) -> None:
        """Add the condition that a column has one of some values, or one in some ranges, none of which overlap."""
        values = [self._bind(value) for value in wanted]
        in_ranges = [f"runs.{column} >= {self._bind(low)} AND runs.{column} < {self._bind(end)}" for low, end in ranges]
        only = "" if index in ("state", "kind") else f" AND runs.{column} <> ''"  # the index is a partial one
        table, where = f"runs INDEXED BY runs_by_{index}", f"runs.tenant = :tenant{only} AND "
        sources = [Entries(table, f"{where}runs.{column} = {value}") for value in values]
        sources += [Entries(table, where + test, is_ordered=False) for test in in_ranges]
        tests = [f"runs.{column} IN ({', '.join(values)})", *in_ranges]
        self.conditions.append(Condition(f"({' OR '.join(tests)})", sources))

    def _add_names(self, names: Iterable[str], connection: apsw.Connection | None) -> None:
        prefixes: list[str] = []
        for prefix in sorted({name[:-1] for name in names if name.endswith("*")}):
            if not prefixes or not prefix.startswith(prefixes[-1]):  # else the shorter one matches its names too
                prefixes.append(prefix)
        if prefixes == [""]:
            return
        exact = {name for name in names if not name.endswith("*") and not name.startswith(tuple(prefixes))}
        ranges = [(prefix, _end_of(prefix)) for prefix in prefixes]
        found: list[str] = []
        if connection is not None:
            for bounds in ranges:
                limit = _NAMES_OF_PREFIXES - len(found) + 1
                rows: Any = connection.execute(_NAMES, (self.values["tenant"], *bounds, limit))
                found += [name for (name,) in rows]
        if found and len(found) <= _NAMES_OF_PREFIXES:
            exact.update(found)
            ranges = []
        self._add("name", "name", exact, ranges)


def conditions(query: RunQuery) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition for runs that match a query, and the values bound in it by name."""
    wanted = Filter(query)
    tests = [condition.test.format(created="runs.created", run="runs.id") for condition in wanted.conditions]
    return " AND ".join(["runs.tenant = :tenant", *tests]), wanted.values


def _end_of(prefix: str) -> str | bytes:
    """Return the bound after all texts with a prefix, in SQLite's order: that of code points, then any blob."""
    stem = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not stem:
        return b""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(_AFTER_SURROGATES if following == _FIRST_SURROGATE else following)


def nanoseconds(time: Timestamp) -> int:
    return max(-INT64_MAX, min(time.seconds * 1_000_000_000 + time.nanos, INT64_MAX))
