"""Scores: finding, adding up, comparing them, and hearing of alerts."""

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime

from lavant.client._arguments import check_seconds, choose, duration, several
from lavant.client._async.alert_stream import AsyncAlertStream
from lavant.client._async.connection import Connection
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.score_pages import list_scores
from lavant.client._plan import Start
from lavant.client._scores import (
    DIMENSIONS,
    RecordedScore,
    ScoreChange,
    ScoreDimension,
    ScoreFilter,
    ScoreGroup,
    score_filter,
)
from lavant.v1.score_service_pb2 import CompareScoresRequest, QueryScoresRequest

ALERTS = "lavant.alerts"


class AsyncScores:
    """What can be done with scores of runs, by rules and by people; found at `client.scores`.

    Those of a rule are known by its id; those of people have an empty one. What was recorded may be found only
    moments later.

    Example:
        await client.runs.score(run_id, name="helpful", value=True, evaluator="ada")
        assert [score.value async for score in client.scores.list(names=["helpful"])] == [True]
        [day] = await client.scores.query(names=["helpful"], bucket=86_400)
        print(day.start, day.count, day.pass_rate)
    """

    def __init__(self, connection: Connection, runs: AsyncRuns) -> None:
        self._connection = connection
        self._runs = runs

    def list(
        self,
        *,
        rules: Iterable[str] = (),
        names: Iterable[str] = (),
        evaluators: Iterable[str] = (),
        versions: Iterable[str] = (),
        run_names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        run_id: str = "",
        ended_after: datetime | None = None,
        ended_before: datetime | None = None,
        page_size: int = 0,
    ) -> AsyncIterator[RecordedScore]:
        """Give single scores, those of the latest runs first, page by page.

        That is any of the words given, and all of the `labels`. `rules` are their ids, `run_names` the names of the
        runs that were scored, which ended at or after `ended_after` and before `ended_before`.
        """
        matching = score_filter(
            rules=rules,
            names=names,
            evaluators=evaluators,
            versions=versions,
            run_names=run_names,
            labels=labels,
            run_id=run_id,
            ended_after=ended_after,
            ended_before=ended_before,
        )
        return list_scores(self._connection, matching, page_size)

    async def query(
        self,
        *,
        by: Iterable[ScoreDimension] = (),
        by_labels: Iterable[str] = (),
        bucket: float | None = None,
        percentiles: Iterable[float] = (50, 90, 95, 99),
        rules: Iterable[str] = (),
        names: Iterable[str] = (),
        evaluators: Iterable[str] = (),
        versions: Iterable[str] = (),
        run_names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        run_id: str = "",
        ended_after: datetime | None = None,
        ended_before: datetime | None = None,
    ) -> tuple[ScoreGroup, ...]:
        """Tell what scores add up to, by time, then by what they are grouped by.

        There is a group for each combination of what is in `by` ("rule", "name", "evaluator", "version", "run_name"),
        of the values of the labels in `by_labels`, and for each `bucket` of so many seconds, counted from 1970. The
        other arguments are those of `list`.

        Example:
            for value in (0.9, 0.7, 0.8):
                await client.runs.score(run_id, name="correctness", value=value, labels={"team": "weather"})
            [group] = await client.scores.query(by=["name"], by_labels=["team"], bucket=3_600, percentiles=[50])
            assert (group.name, group.labels, group.count) == ("correctness", {"team": "weather"}, 3)
            assert (round(group.mean, 2), group.percentiles) == (0.8, {50: 0.8})
        """
        matching = score_filter(
            rules=rules,
            names=names,
            evaluators=evaluators,
            versions=versions,
            run_names=run_names,
            labels=labels,
            run_id=run_id,
            ended_after=ended_after,
            ended_before=ended_before,
        )
        wanted = tuple(percentiles)
        request = QueryScoresRequest(
            filter=matching,
            group_by=[choose("by", dimension, DIMENSIONS) for dimension in several("by", by)],
            group_by_labels=several("by_labels", by_labels),
            bucket=None if bucket is None else duration(check_seconds("bucket", bucket)),
            percentiles=wanted,
        )
        response = await self._connection.call(lambda lane: lane.scores.QueryScores, request)
        return tuple(ScoreGroup.from_proto(group, wanted) for group in response.groups)

    async def compare(
        self,
        candidate: ScoreFilter,
        *,
        baseline: ScoreFilter,
        min_count: int = 30,
        confidence: float = 0.95,
    ) -> tuple[ScoreChange, ...]:
        """Compare scores with earlier ones, or with those of another version: a change for each score's name.

        With fewer than `min_count` scores on either side there is no verdict; `confidence` is how sure a difference
        must be, above 0.5 and below 1.

        Example:
            now = ScoreFilter(names=["correctness"], versions=["2"])
            before = ScoreFilter(names=["correctness"], versions=["1"])
            changes = await client.scores.compare(now, baseline=before)
            assert not any(change.verdict == "regressed" for change in changes)
        """
        request = CompareScoresRequest(
            baseline=baseline.to_proto(), candidate=candidate.to_proto(), min_count=min_count, confidence=confidence
        )
        response = await self._connection.call(lambda lane: lane.scores.CompareScores, request)
        return tuple(map(ScoreChange.from_proto, response.changes))

    def alerts(
        self,
        *,
        consumer: str | None = None,
        resume_token: str | None = None,
        start: Start = "beginning",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        reconnect_timeout: float | None = 60.0,
        heartbeat_interval: float = 15.0,
        take_over: bool = False,
    ) -> AsyncAlertStream:
        """Tell when scores leave the bounds that rules' alerts have set, and when they are back; never ends by itself.

        Arguments are those of `client.runs.stream`.
        """
        return AsyncAlertStream(
            self._runs.stream(
                ALERTS,
                consumer=consumer,
                resume_token=resume_token,
                start=start,
                types=["alert_changed"],
                timeout=timeout,
                idle_timeout=idle_timeout,
                reconnect_timeout=reconnect_timeout,
                heartbeat_interval=heartbeat_interval,
                take_over=take_over,
                wait_for_run=True,
            )
        )
