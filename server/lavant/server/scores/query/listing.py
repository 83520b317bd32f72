"""Single scores, those of the latest runs first."""

from typing import Any, NamedTuple

import apsw

from lavant.server.scores.query.filters import condition, time_range
from lavant.v1.event_pb2 import ScoreRecorded
from lavant.v1.score_service_pb2 import ScoreFilter

# ruff: noqa: S608 - every value is bound; only constants of this package become part of the text
_EXAMINED = 10_000  # scores, at most, for one page
_PAGE_BYTES = 1 << 20  # unless the first score is larger
_MARK_BITS = 128
_MARK_BYTES = _MARK_BITS // 8


class ScorePage(NamedTuple):
    """Scores, and the position after which the next page begins; None: this is the last page."""

    scores: list[ScoreRecorded]
    next_position: int | None


def list_scores(
    connection: apsw.Connection, tenant: str, wanted: ScoreFilter, limit: int, after: int | None
) -> ScorePage:
    """List what fits in a page, of the next `limit` scores. A position is the same on every replica."""
    start, end = time_range(wanted)
    at = (end, b"") if after is None else _time_and_mark(after)  # nothing sorts before the empty mark
    index, subject = "scores_by_time", ""
    bounds: tuple[Any, ...] = (tenant,)
    if wanted.subject_run_id:
        index, subject, bounds = "scores_by_subject", "AND scores.subject = ?", (tenant, wanted.subject_run_id)
    examined = f"""SELECT time_ns, mark, series, id FROM scores INDEXED BY {index}
        WHERE tenant = ? {subject} AND (time_ns, mark) < (?, ?) AND time_ns >= ?
        ORDER BY time_ns DESC, mark DESC LIMIT {_EXAMINED}"""
    where, values = condition(tenant, wanted)
    sql = f"""SELECT found.time_ns, found.mark, scores.record FROM ({examined}) AS found
        LEFT JOIN series ON series.id = found.series AND {where}
        LEFT JOIN scores ON scores.id = found.id AND series.id IS NOT NULL
        ORDER BY found.time_ns DESC, found.mark DESC"""
    rows: Any = connection.execute(sql, (*bounds, *at, start, *values))
    scores: list[ScoreRecorded] = []
    examined_count = size = 0
    for time_ns, mark, record in rows:
        examined_count += 1
        at = (time_ns, mark)
        if record is None:
            continue
        scores.append(ScoreRecorded.FromString(record))
        size += len(record)
        if len(scores) >= limit or size > _PAGE_BYTES:
            rows.close()
            return ScorePage(scores, _position(*at))
    return ScorePage(scores, _position(*at) if examined_count == _EXAMINED else None)


def _position(time_ns: int, mark: bytes) -> int:
    return time_ns << _MARK_BITS | int.from_bytes(mark, "big")


def _time_and_mark(position: int) -> tuple[int, bytes]:
    return position >> _MARK_BITS, (position & (1 << _MARK_BITS) - 1).to_bytes(_MARK_BYTES, "big")
