"""Writes scores, their tallies, and the positions up to which the logs were read, in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import apsw
from pydantic_core import to_json

from lavant.server.model import RunKey
from lavant.server.scores.index.tally import Kind, Tally
from lavant.v1.event_pb2 import Event, Score, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch

HOUR, DAY = 3600, 24 * 3600  # the spans that tallies are kept of
_NANOS = 1_000_000_000
_LARGEST = 1e100  # larger numbers count as this: their squares must not overflow
_MARK_BYTES = 16

_FIND_SERIES = """SELECT id FROM series WHERE tenant = ? AND rule_id = ? AND name = ? AND evaluator = ?
    AND version = ? AND run_name = ? AND labels = ? AND direction = ?"""
_INSERT_SERIES = "INSERT INTO series VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_SCORE = "INSERT OR IGNORE INTO scores VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND_TALLY = "SELECT tally FROM tallies WHERE series = ? AND span = ? AND start = ?"
_PUT_TALLY = """INSERT INTO tallies(tally, series, span, start) VALUES(?, ?, ?, ?)
    ON CONFLICT(series, span, start) DO UPDATE SET tally = excluded.tally"""


class Source(NamedTuple):
    """The log that a score was recorded in; `created_ns` distinguishes successive runs of the same ID."""

    key: RunKey
    created_ns: int


class Found(NamedTuple):
    """The events with scores that were read from a log about a tenant's runs, as an EventBatch has them."""

    tenant: str
    source: Source
    events: bytes


class Series(NamedTuple):
    """The fields that scores must share to be aggregated. `labels` is a JSON object with sorted keys."""

    tenant: str
    rule_id: str
    name: str
    evaluator: str
    version: str
    run_name: str
    labels: str
    direction: int  # Score.higher_is_better as 1 or 0; -1: absent


class ScoreRow(NamedTuple):
    """A score. `value` is None unless it is a number or a verdict, `label` empty unless it is a class."""

    series: Series
    time_ns: int
    recorded_ns: int
    kind: Kind
    value: float | None
    label: str
    mark: bytes
    subject: str
    record: bytes


class LogPosition(NamedTuple):
    """Sequence up to which a log was read; its last one if it is sealed."""

    created_ns: int
    sequence: int = 0
    sealed: bool = False


@dataclass(slots=True)
class Intake:
    """Scores that were read together, and the positions in feeds and logs that they were read up to."""

    found: list[Found] = field(default_factory=list)
    feeds: dict[str, int] = field(default_factory=dict)
    logs: dict[RunKey, LogPosition] = field(default_factory=dict)


class IndexPositions(NamedTuple):
    """Positions in feeds and logs that an index has read up to."""

    feeds: Mapping[str, int]
    logs: Mapping[RunKey, LogPosition]


def read_positions(connection: apsw.Connection) -> IndexPositions:
    """Return the positions that the index has read up to."""
    feeds: Any = connection.execute("SELECT tenant, position FROM feeds")
    logs: Any = connection.execute("SELECT tenant, run_id, created_ns, sequence, sealed FROM logs")
    return IndexPositions(
        {tenant: int(position) for tenant, position in feeds},
        {RunKey(*key): LogPosition(created, sequence, bool(sealed)) for *key, created, sequence, sealed in logs},
    )


def take_in(connection: apsw.Connection, intake: Intake) -> None:
    """Store an intake, completely or not at all; scores that are stored already stay as they are."""
    with connection:
        series: dict[Series, int] = {}
        new: dict[tuple[int, int, int], list[ScoreRow]] = defaultdict(list)
        for row in chain.from_iterable(map(_rows_of, intake.found)):
            number = series.get(row.series) or series.setdefault(row.series, _series_id(connection, row.series))
            if _insert(connection, number, row):
                second = row.time_ns // _NANOS
                for span in (HOUR, DAY):
                    new[number, span, second // span * span].append(row)
        for bucket, rows in new.items():
            _add(connection, bucket, rows)
        # As text: a position may have more bits than SQLite's numbers.
        positions = [(tenant, str(position)) for tenant, position in intake.feeds.items()]
        connection.executemany("INSERT OR REPLACE INTO feeds VALUES(?, ?)", positions)
        logs = [(*key, *position) for key, position in intake.logs.items()]
        connection.executemany("INSERT OR REPLACE INTO logs VALUES(?, ?, ?, ?, ?)", logs)


def _series_id(connection: apsw.Connection, series: Series) -> int:
    found: int | None = connection.execute(_FIND_SERIES, series).get
    if found is None:
        connection.execute(_INSERT_SERIES, series)
        found = connection.last_insert_rowid()
    return found


def _insert(connection: apsw.Connection, series: int, row: ScoreRow) -> bool:
    said = (int(row.kind), row.value, row.label)
    values = (series, row.time_ns, row.recorded_ns, *said, row.mark, row.series.tenant, row.subject, row.record)
    connection.execute(_INSERT_SCORE, values)
    return connection.changes() > 0


def _add(connection: apsw.Connection, bucket: tuple[int, int, int], rows: Iterable[ScoreRow]) -> None:
    stored: bytes | None = connection.execute(_FIND_TALLY, bucket).get
    tally = Tally() if stored is None else Tally.decode(stored)
    tally.add_all((row.kind, row.value, row.label) for row in rows)
    connection.execute(_PUT_TALLY, (tally.encode(), *bucket))


def _rows_of(found: Found) -> Iterator[ScoreRow]:
    """Return the scores that were found as rows."""
    for event in EventBatch.FromString(found.events).events:
        for number, recorded in enumerate(_scores_of(event)):
            yield _row(found, event, number, recorded)


def _scores_of(event: Event) -> Iterator[ScoreRecorded]:
    """Return the scores of an event, as they are listed: one that was recorded alone, or those of a rule's row."""
    if event.HasField("score_recorded"):
        yield event.score_recorded
    row = event.row_finished
    for score in row.scores:
        yield ScoreRecorded(
            subject_run_id=row.subject_run_id,
            score=score,
            rule_id=row.rule_id,
            subject_name=row.subject_name,
            subject_time=row.subject_time,
            labels=row.labels,
        )


def _row(found: Found, event: Event, number: int, recorded: ScoreRecorded) -> ScoreRow:
    kind, value, label = _result(recorded.score)
    recorded_ns = event.record_time.ToNanoseconds()
    return ScoreRow(
        series=_series(found.tenant, recorded),
        time_ns=recorded.subject_time.ToNanoseconds() if recorded.HasField("subject_time") else recorded_ns,
        recorded_ns=recorded_ns,
        kind=kind,
        value=value,
        label=label,
        mark=_mark(found.source, event.sequence, number),
        subject=recorded.subject_run_id,
        record=recorded.SerializeToString(),
    )


def _mark(source: Source, sequence: int, number: int) -> bytes:
    """Return a key that identifies a score, and orders scores of the same time, in the same way on every replica."""
    name = "\0".join((*source.key, str(source.created_ns), str(sequence), str(number)))
    return blake2b(name.encode(), digest_size=_MARK_BYTES).digest()


def _result(score: Score) -> tuple[Kind, float | None, str]:
    match score.WhichOneof("value"):
        case "number":
            return Kind.NUMBER, max(-_LARGEST, min(score.number, _LARGEST)), ""
        case "passed":
            return Kind.VERDICT, float(score.passed), ""
        case "label":
            return Kind.CLASS, None, score.label
        case _:
            return Kind.ERROR, None, ""


def _series(tenant: str, recorded: ScoreRecorded) -> Series:
    score = recorded.score
    labels = to_json({key: recorded.labels[key] for key in sorted(recorded.labels)}).decode()
    evaluator = score.evaluator
    return Series(
        tenant,
        recorded.rule_id,
        score.name,
        evaluator.name,
        evaluator.version,
        recorded.subject_name,
        labels,
        direction=int(score.higher_is_better) if score.HasField("higher_is_better") else -1,
    )
