"""Writing: scores, what they add up to, and how far the logs were read, in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import apsw

from lavant.server.model import RunKey
from lavant.server.scores.rows import Found, Row, Series, rows_of
from lavant.server.scores.tally import Tally

HOUR, DAY = 3600, 24 * 3600  # the spans that tallies are kept of
_NANOS = 1_000_000_000

_FIND_SERIES = """SELECT id FROM series WHERE tenant = ? AND rule_id = ? AND name = ? AND evaluator = ?
    AND version = ? AND run_name = ? AND labels = ?"""
_INSERT_SERIES = "INSERT INTO series VALUES(NULL, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_SCORE = "INSERT OR IGNORE INTO scores VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND_TALLY = "SELECT tally FROM tallies WHERE series = ? AND span = ? AND start = ?"
_PUT_TALLY = """INSERT INTO tallies(tally, series, span, start) VALUES(?, ?, ?, ?)
    ON CONFLICT(series, span, start) DO UPDATE SET tally = excluded.tally"""


class LogProgress(NamedTuple):
    """How far a log was read: up to a sequence, which is its last one if it is sealed."""

    created_ns: int
    sequence: int = 0
    sealed: bool = False


@dataclass(slots=True)
class Intake:
    """What was read at once: scores, and how far that is in feeds of changes and in logs."""

    found: list[Found] = field(default_factory=list)
    feeds: dict[str, int] = field(default_factory=dict)
    logs: dict[RunKey, LogProgress] = field(default_factory=dict)


class Progress(NamedTuple):
    """How far an index has come."""

    feeds: Mapping[str, int]
    logs: Mapping[RunKey, LogProgress]


def read_progress(connection: apsw.Connection) -> Progress:
    """Tell how far the index has come."""
    feeds: Any = connection.execute("SELECT tenant, position FROM feeds")
    logs: Any = connection.execute("SELECT tenant, run_id, created_ns, sequence, sealed FROM logs")
    return Progress(
        {tenant: int(position) for tenant, position in feeds},
        {RunKey(*key): LogProgress(created, sequence, bool(sealed)) for *key, created, sequence, sealed in logs},
    )


def take_in(connection: apsw.Connection, intake: Intake) -> None:
    """Store it, whole or not at all; what is stored already is left as it is."""
    with connection:
        series: dict[Series, int] = {}
        new: dict[tuple[int, int, int], list[Row]] = defaultdict(list)
        for row in chain.from_iterable(map(rows_of, intake.found)):
            number = series.get(row.series) or series.setdefault(row.series, _series(connection, row.series))
            if _insert(connection, number, row):
                second = row.time_ns // _NANOS
                for span in (HOUR, DAY):
                    new[number, span, second // span * span].append(row)
        for place, rows in new.items():
            _add(connection, place, rows)
        # As text: a position may have more bits than SQLite's numbers.
        positions = [(tenant, str(position)) for tenant, position in intake.feeds.items()]
        connection.executemany("INSERT OR REPLACE INTO feeds VALUES(?, ?)", positions)
        logs = [(*key, *progress) for key, progress in intake.logs.items()]
        connection.executemany("INSERT OR REPLACE INTO logs VALUES(?, ?, ?, ?, ?)", logs)


def _series(connection: apsw.Connection, series: Series) -> int:
    found: int | None = connection.execute(_FIND_SERIES, series).get
    if found is None:
        connection.execute(_INSERT_SERIES, series)
        found = connection.last_insert_rowid()
    return found


def _insert(connection: apsw.Connection, series: int, row: Row) -> bool:
    said = (int(row.kind), row.value, row.label)
    values = (series, row.time_ns, row.recorded_ns, *said, row.mark, row.series.tenant, row.subject, row.record)
    connection.execute(_INSERT_SCORE, values)
    return connection.changes() > 0


def _add(connection: apsw.Connection, place: tuple[int, int, int], rows: Iterable[Row]) -> None:
    stored: bytes | None = connection.execute(_FIND_TALLY, place).get
    tally = Tally() if stored is None else Tally.decode(stored)
    tally.add_all((row.kind, row.value, row.label) for row in rows)
    connection.execute(_PUT_TALLY, (tally.encode(), *place))
