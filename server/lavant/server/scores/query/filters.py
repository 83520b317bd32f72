"""Selection of the series and scores that match a filter."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from lavant.server.scores.index.intake import Series
from lavant.v1.score_service_pb2 import ScoreFilter

# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_CHOICES = (
    ("rule_id", "rule_ids"),
    ("name", "names"),
    ("evaluator", "evaluators"),
    ("version", "versions"),
    ("run_name", "run_names"),
)
_DAY_NS = 24 * 3600 * 1_000_000_000
_FIRST, _LAST = -106_751 * _DAY_NS, 106_751 * _DAY_NS  # the years 1677 and 2262: whole days that SQLite can count in ns
_LABEL = "EXISTS (SELECT 1 FROM json_each(series.labels) AS label WHERE label.key = ? AND label.value = ?)"


class TimeRange(NamedTuple):
    """Range of time, in nanoseconds since 1970; its end is exclusive."""

    start_ns: int
    end_ns: int


def condition(tenant: str, wanted: ScoreFilter) -> tuple[str, list[Any]]:
    """Return the SQL condition on a series that matches, and the values to bind in it."""
    clauses, values = ["series.tenant = ?"], [tenant]
    for column, choices in _CHOICES:
        if chosen := getattr(wanted, choices):
            clauses.append(f"series.{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(chosen)))
    for label in wanted.labels.items():
        clauses.append(_LABEL)
        values += label
    return " AND ".join(clauses), values


def find_series(connection: apsw.Connection, tenant: str, wanted: ScoreFilter) -> Sequence[tuple[int, Series]]:
    """Return the series of the scores that match; some may have none in its time range."""
    where, values = condition(tenant, wanted)
    columns = ", ".join(f"series.{name}" for name in Series._fields)
    found: Any = connection.execute(f"SELECT series.id, {columns} FROM series WHERE {where}", values)
    return [(number, Series(*columns)) for number, *columns in found]


def time_range(wanted: ScoreFilter) -> TimeRange:
    """Return the range of time in which runs that match ended."""
    start = wanted.subject_ended_after.ToNanoseconds() if wanted.HasField("subject_ended_after") else _FIRST
    end = wanted.subject_ended_before.ToNanoseconds() if wanted.HasField("subject_ended_before") else _LAST
    return TimeRange(max(_FIRST, min(start, _LAST)), max(_FIRST, min(end, _LAST)))
