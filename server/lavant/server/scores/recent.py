"""What was recorded of a rule lately."""

from typing import Any, NamedTuple

import apsw

# By the time of recording: a backfill's scores are new, however long ago the runs ended.
_RECENT = """SELECT count(*), count(value), total(value), total(kind = 1), total(kind = 1 AND value > 0),
        total(kind = 3)
    FROM series CROSS JOIN scores INDEXED BY scores_by_record ON scores.series = series.id AND recorded_ns > ?
    WHERE series.tenant = ? AND series.rule_id = ? AND (? = '' OR series.name = ?)"""


class Recent(NamedTuple):
    """Scores, numbers and verdicts among them with their sum, verdicts with those that passed, and failures."""

    scores: int
    values: int
    sum: float
    verdicts: int
    passes: int
    errors: int


def add_up_recent(connection: apsw.Connection, tenant: str, rule_id: str, name: str, since_ns: int) -> Recent:
    """Add up what was recorded of a rule after a point in time, by a score's name or by any (empty)."""
    row: Any = connection.execute(_RECENT, (since_ns, tenant, rule_id, name, name)).fetchone()
    scores, values, total, *counts = row
    return Recent(scores, values, total, *map(int, counts))
