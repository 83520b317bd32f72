"""Lists of runs: their tables and indexes, and the pages that filters select."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Any

import apsw

from lavant.server.store.filters import BY_AGE, CALLERS_RUNS, INT64_MAX, Condition, Filter, nanoseconds
from lavant.server.store.port import ListedRun, RunPage, RunQuery
from lavant.v1.run_pb2 import Run

# The columns of `runs` that lists use, in every engine. Lists are in the order of `created`, the newest first.
COLUMNS = """
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    created INTEGER NOT NULL,    -- create_ns; higher where that would not be above `created` of all earlier runs
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    state INTEGER NOT NULL,
    conversation_id TEXT NOT NULL,
    parent_run_id TEXT NOT NULL,
    create_ns INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,    -- when the producer last sent a batch; at first create_ns
    timeout_ns INTEGER
"""
# Each condition of a filter has an index in the order of lists, so that a page is read without a sort.
INDEXES = """
CREATE INDEX runs_by_age ON runs(tenant, created);
CREATE INDEX runs_by_kind ON runs(tenant, kind, created);
CREATE INDEX runs_by_state ON runs(tenant, state, created);
CREATE INDEX runs_by_name ON runs(tenant, name, created) WHERE name <> '';
CREATE INDEX runs_by_conversation ON runs(tenant, conversation_id, created) WHERE conversation_id <> '';
CREATE INDEX runs_by_parent ON runs(tenant, parent_run_id, created) WHERE parent_run_id <> '';
CREATE INDEX runs_by_lag ON runs(tenant, created - create_ns) WHERE created > create_ns;
CREATE INDEX runs_to_watch ON runs(timeout_ns) WHERE timeout_ns IS NOT NULL AND state < 10;
CREATE TABLE labels(
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created INTEGER NOT NULL,    -- as in runs
    run INTEGER NOT NULL,        -- runs.id
    PRIMARY KEY(tenant, key, value, created, run)
) WITHOUT ROWID;
"""
LOOKED_AT = 10_000  # maximum number of runs examined for one page of the feed of changes
WINDOWS = (1_000, 10_000, 100_000)  # numbers of runs examined for a page of a list, one after another until it is full
_SORTED = 10_000  # maximum number of runs that are sorted for a page
_PAGE_BYTES = 1 << 20  # of runs in one page, unless the first is larger; gRPC clients accept 4 MiB
SILENT = """SELECT tenant, run_id FROM runs
    WHERE timeout_ns IS NOT NULL AND state < 10 AND max(seen_ns, ?) + timeout_ns < ? ORDER BY id"""

# Each step seeks the next tenant or key, however many runs have it.
_TENANTS = """WITH RECURSIVE
    of_runs(tenant) AS (SELECT min(tenant) FROM runs
        UNION ALL SELECT (SELECT min(tenant) FROM runs WHERE tenant > of_runs.tenant) FROM of_runs
            WHERE of_runs.tenant IS NOT NULL),
    of_deletions(tenant) AS (SELECT min(tenant) FROM deletions
        UNION ALL SELECT (SELECT min(tenant) FROM deletions WHERE tenant > of_deletions.tenant) FROM of_deletions
            WHERE of_deletions.tenant IS NOT NULL)
    SELECT tenant FROM of_runs WHERE tenant IS NOT NULL
    UNION SELECT tenant FROM of_deletions WHERE tenant IS NOT NULL
    ORDER BY tenant"""
_LABEL_KEYS = """WITH RECURSIVE
    keys(key) AS (SELECT min(key) FROM labels WHERE tenant = ?1
        UNION ALL SELECT (SELECT min(key) FROM labels WHERE tenant = ?1 AND key > keys.key) FROM keys
            WHERE keys.key IS NOT NULL)
    SELECT key FROM keys WHERE key IS NOT NULL LIMIT ?2"""

# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_LAG = "SELECT max(created - create_ns) FROM runs INDEXED BY runs_by_lag WHERE tenant = ? AND created > create_ns"


def label_keys(connection: apsw.Connection, tenant: str, limit: int) -> list[str]:
    """List the keys that labels of a tenant's runs have, up to a number of them."""
    rows: Any = connection.execute(_LABEL_KEYS, (tenant, limit))
    return [key for (key,) in rows]


def list_runs(
    connection: apsw.Connection,
    query: RunQuery,
    before: int | None,
    columns: str,
    decode: Callable[..., Run],
) -> RunPage:
    """List runs, the newest first: a full page, unless it is the last or `WINDOWS` ends first.

    `columns` are those of a row that `decode` makes a run of.
    """
    search = _Search(connection, query, before)
    with closing(search.rows(columns)) as rows:  # an open cursor would keep the transaction open
        taken, cut = take(((created, decode(*values)) for created, *values in rows), query.limit)
    rest = taken[-1].position if cut else search.rest
    # Replicas may create runs at the same position, and the page must be the same on each of them.
    taken.sort(key=lambda listed: (-listed.position, listed.run.run_id))
    return RunPage([listed.run for listed in taken], rest)


class _Search:
    """Search for the runs of a filter, in one window of positions after another.

    In each window the runs come from the condition that is the most selective there, and are tested for the others.
    `rest` is the position at which the search stopped, before the end; None: it has not.
    """

    def __init__(self, connection: apsw.Connection, query: RunQuery, before: int | None) -> None:
        wanted = Filter(query, connection)
        self._connection = connection
        self._conditions = wanted.conditions
        self._values = wanted.values
        self._end, self._before = 0, INT64_MAX if before is None else before
        if query.filter.HasField("created_after"):  # a run's create_ns is never above its position
            self._end = max(0, nanoseconds(query.filter.created_after))
        if query.filter.HasField("created_before"):
            lag = connection.execute(_LAG, (query.tenant,)).get or 0
            self._before = min(self._before, nanoseconds(query.filter.created_before) + lag)
        self.rest: int | None = None

    def rows(self, columns: str) -> Generator[Sequence[Any]]:
        """Yield the positions and rows of the runs."""
        drivers = [condition for condition in self._conditions if condition.sources]
        if not all(condition.is_ordered for condition in drivers) or not drivers:
            drivers.append(BY_AGE)
        selective = [condition for condition in self._conditions if condition is not CALLERS_RUNS]
        if len(drivers) == 1 and selective in ([], drivers):  # nearly every entry is a run of the page
            yield from self._window(columns, drivers[0], self._end)
            return
        for size in WINDOWS:
            driver, self.rest = self._choose(drivers, size)
            yield from self._window(columns, driver, self._end if self.rest is None else self.rest)
            if self.rest is None:
                return
            self._before = self.rest

    def _choose(self, drivers: Iterable[Condition], size: int) -> tuple[Condition, int | None]:
        """Return the condition whose next `size` entries reach the furthest back, and how far; None: to the end."""
        found: list[tuple[int, int, Condition]] = []
        for driver in drivers:
            if not driver.is_ordered and size > _SORTED:
                continue
            entries = " UNION ALL ".join(source.positions() for source in driver.sources)
            order = " ORDER BY created DESC" if driver.is_ordered else ""
            sql = f"SELECT count(*), min(created) FROM ({entries}{order} LIMIT {size})"
            counted: Any = self._execute(sql, self._end).fetchall()
            count, lowest = counted[0]
            if count < size:
                found.append((-1, count, driver))
            elif driver.is_ordered:
                found.append((lowest, count, driver))
            if not count:
                break
        lowest, _, driver = min(found, key=lambda one: one[:2])
        return driver, None if lowest < 0 else lowest

    def _window(self, columns: str, driver: Condition, after: int) -> Generator[Sequence[Any]]:
        others = [condition for condition in self._conditions if condition is not driver]
        runs = " UNION ALL ".join(source.runs(columns, others) for source in driver.sources)
        with closing(self._execute(f"{runs} ORDER BY created DESC", after)) as rows:
            yield from rows

    def _execute(self, sql: str, after: int) -> apsw.Cursor:
        return self._connection.execute(sql, self._values | {"before": self._before, "after": after})


def list_tenants(connection: apsw.Connection) -> list[str]:
    """List the tenants that have runs or deletions, in the order of their names."""
    rows: Any = connection.execute(_TENANTS)
    return [tenant for (tenant,) in rows]


def take(rows: Iterable[tuple[int, Run]], limit: int) -> tuple[list[ListedRun], bool]:
    """Take as many runs as a page may hold, at least one if there is any; return them and whether any are left.

    Runs at the same position are never split over two pages.
    """
    taken: list[ListedRun] = []
    size = 0
    for position, run in rows:
        size += run.ByteSize()
        full = len(taken) >= limit or size > _PAGE_BYTES
        if full and taken and taken[-1].position != position:
            return taken, True
        taken.append(ListedRun(position, run))
    return taken, False
