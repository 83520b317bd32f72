"""Runs that a rule has scored, to be evaluated again: those with errors, without a version, or all."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import apsw

from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.scores.index.tally import Kind
from lavant.v1.rule_pb2 import BackfillMode, Rule

_EXAMINED = 10_000  # scores, at most, for one page
# The page is cut before the rule's scores are searched for among others, so that its cost is bounded.
_SCORES = f"""SELECT found.subject, scores.recorded_ns, scores.kind, series.name, series.version
    FROM (SELECT subject, series, id FROM scores INDEXED BY scores_by_subject
        WHERE tenant = ? AND subject > ? ORDER BY subject LIMIT {_EXAMINED}) AS found
    LEFT JOIN series ON series.id = found.series AND series.rule_id = ?
    LEFT JOIN scores ON scores.id = found.id AND series.id IS NOT NULL
    ORDER BY found.subject"""  # noqa: S608 - a constant


class ScoredRunPage(NamedTuple):
    """IDs of runs in their order, and the ID after which the next page begins; None: this is the last page."""

    run_ids: list[str]
    next_after: str | None


class _Score(NamedTuple):
    recorded_ns: int
    kind: int
    name: str
    version: str


class ScoredRuns:
    """Selects runs by the scores that a rule has recorded."""

    def __init__(self, index: ScoreIndex, follower: Follower) -> None:
        self._index = index
        self._follower = follower

    async def page(self, tenant: str, rule: Rule, mode: "BackfillMode.ValueType", after: str) -> ScoredRunPage:
        """Return the next runs to evaluate again. Raises UNAVAILABLE while the scores are still being read."""
        await self._follower.caught_up(tenant)
        return await self._index.read(_page, tenant, rule, mode, after)


def versions_of(rule: Rule) -> list[tuple[str, str]]:
    """Return the names of scores with the versions of their evaluators, without those that have none."""
    named = [one for one in rule.evaluators if one.version]
    return [(name, one.version) for one in named for name in one.score_names or (one.name,)]


def _page(
    connection: apsw.Connection, tenant: str, rule: Rule, mode: "BackfillMode.ValueType", after: str
) -> ScoredRunPage:
    rows: Any = connection.execute(_SCORES, (tenant, after, rule.rule_id)).fetchall()
    subjects = [(subject, list(_scores(found))) for subject, found in groupby(rows, key=lambda row: row[0])]
    is_full = len(rows) == _EXAMINED
    if is_full and len(subjects) > 1:
        subjects.pop()  # the next page may have more scores of it
    versions = versions_of(rule)
    run_ids = [subject for subject, scores in subjects if scores and _is_wanted(mode, scores, versions)]
    return ScoredRunPage(run_ids, subjects[-1][0] if is_full else None)


def _scores(rows: Iterator[Any]) -> Iterator[_Score]:
    return (_Score(*said) for _, *said in rows if said[0] is not None)


def _is_wanted(mode: "BackfillMode.ValueType", scores: Sequence[_Score], versions: Sequence[tuple[str, str]]) -> bool:
    if mode == BackfillMode.BACKFILL_MODE_ERRORS:
        # All scores of one evaluation of a run were recorded at once.
        last_ns = max(score.recorded_ns for score in scores)
        return any(score.kind == Kind.ERROR for score in scores if score.recorded_ns == last_ns)
    if mode == BackfillMode.BACKFILL_MODE_VERSION:
        there = {(score.name, score.version) for score in scores if score.kind != Kind.ERROR}
        return not there.issuperset(versions)
    return True
