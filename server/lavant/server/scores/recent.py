"""What was recorded of a rule lately."""

from typing import Any, NamedTuple

import apsw

from lavant.server.scores.tally import Kind

# By the time of recording: a backfill's scores are new, however long ago the runs ended.
_RECENT = """SELECT series.name, count(*), count(value), total(value), total(kind = 1), total(kind = 1 AND value > 0),
        total(kind = 3)
    FROM series CROSS JOIN scores INDEXED BY scores_by_record ON scores.series = series.id AND recorded_ns > ?
    WHERE series.tenant = ? AND series.rule_id = ? AND (? = '' OR series.name = ?)
    GROUP BY series.name"""
# Any value will do: names whose scores are of several kinds are rare, and the first one is found at once.
_KIND = """SELECT kind FROM series CROSS JOIN scores INDEXED BY scores_by_record ON scores.series = series.id
    WHERE series.tenant = ? AND series.rule_id = ? AND series.name = ? AND kind != 3 LIMIT 1"""
_NAMES = "SELECT DISTINCT name FROM series WHERE tenant = ? AND rule_id = ? ORDER BY name LIMIT 20"


class Recent(NamedTuple):
    """Scores recorded in a window.

    `scores` counts all of them, `values` numbers and verdicts with their `sum`, `verdicts` those with how many of them
    passed (`passes`), and `errors` the failures of evaluators. A failure counts as a verdict that did not pass where
    the name's values are verdicts. If there are no scores, `names` are the names that the rule's scores ever had.
    """

    scores: int
    values: int
    sum: float
    verdicts: int
    passes: int
    errors: int
    names: tuple[str, ...] = ()


def add_up_recent(connection: apsw.Connection, tenant: str, rule_id: str, name: str, since_ns: int) -> Recent:
    """Add up what was recorded of a rule after a point in time, by a score's name or by any (empty)."""
    rows: Any = connection.execute(_RECENT, (since_ns, tenant, rule_id, name, name)).fetchall()
    parts = [_of_name(connection, tenant, rule_id, row) for row in rows]
    if not parts:
        names: Any = connection.execute(_NAMES, (tenant, rule_id)).fetchall()
        return Recent(0, 0, 0.0, 0, 0, 0, tuple(found for (found,) in names))
    columns = zip(*(part[:-1] for part in parts), strict=True)
    return Recent(*map(sum, columns))  # type: ignore[arg-type]  # each column is of one type


def _of_name(connection: apsw.Connection, tenant: str, rule_id: str, row: Any) -> Recent:
    name, scores, values, total, *counts = row
    verdicts, passes, errors = map(int, counts)
    if verdicts:
        is_verdict = verdicts == values
    else:  # only its past tells what a score would have been whose evaluator only fails
        is_verdict = scores == errors and _kind_of(connection, tenant, rule_id, name) == Kind.VERDICT
    unpassed = errors if is_verdict else 0
    return Recent(scores, values + unpassed, total, verdicts + unpassed, passes, errors)


def _kind_of(connection: apsw.Connection, tenant: str, rule_id: str, name: str) -> int | None:
    kind: int | None = connection.execute(_KIND, (tenant, rule_id, name)).get
    return kind
