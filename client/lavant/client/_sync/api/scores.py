# Generated from _async/api/scores.py by client/unasync.py: change that file instead.
"""Calls about scores: list, aggregate and compare them, and follow their alerts."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Self

from lavant.client._reading.plan import Start
from lavant.client._sync.concurrency import Closing
from lavant.client._sync.run_stream import RunStream
from lavant.client._sync.transport import Connection
from lavant.client._wire.arguments import check_seconds, choose, duration, several
from lavant.client.events import AlertChangedEvent
from lavant.client.scores import (
    DIMENSIONS,
    RecordedScore,
    ScoreChange,
    ScoreDimension,
    ScoreFilter,
    ScoreGroup,
    score_filter,
)
from lavant.v1.score_service_pb2 import CompareScoresRequest, ListScoresRequest, QueryScoresRequest
from lavant.v1.score_service_pb2 import ScoreFilter as ScoreFilterProto

if TYPE_CHECKING:
    from lavant.client._sync.api.runs import Runs

ALERTS = "lavant.alerts"


def list_scores(connection: Connection, matching: ScoreFilterProto, page_size: int | None) -> Iterator[RecordedScore]:
    """Yield the scores that match, those of the latest runs first, in pages."""
    request = ListScoresRequest(filter=matching, page_size=page_size)
    for page in connection.pages(lambda stubs: stubs.scores.ListScores, request):
        for score in page.scores:
            yield RecordedScore.from_proto(score)


class AlertStream(Closing, Iterator[AlertChangedEvent]):
    """Stream of alerts that start or stop firing, each change exactly once. Never ends by itself.

    Reconnects by itself. Iterate over it once, in one thread. Leaving its `with` block, or dropping the last
    reference, closes it.

    Example:
        few = Alert(name="few", statistic=ScoreStatistic.COUNT, below=100, window=timedelta(hours=1))
        client.rules.create("quality", alerts=[few])
        client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        with client.scores.alerts(consumer="pager", idle_timeout=0.1) as stream:
            try:
                for alert in stream:
                    print(alert.data.message)
            except IdleTimeout:
                print("nothing else happened")
        later = client.scores.alerts(consumer="pager", resume_token=stream.resume_token)
    """

    def __init__(self, stream: RunStream) -> None:
        self._stream = stream

    @property
    def resume_token(self) -> str:
        """Position after the last change returned; empty before the first frame."""
        return self._stream.resume_token

    def close(self) -> None:
        """Close the stream: cancels the call at once. May be called again."""
        self._stream.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AlertChangedEvent:
        while True:
            event = next(self._stream)
            if event.type == "alert_changed":
                return event


class Scores:
    """Calls about the scores of runs, given by rules and by people, at `client.scores`.

    Scores of people have an empty `rule_id`. A score is found within moments after it was recorded.

    Example:
        client.runs.score(run_id, name="helpful", value=True, evaluator="ada")
        assert [score.value for score in client.scores.list(names=["helpful"])] == [True]
        [day] = client.scores.query(names=["helpful"], bucket=86_400)
        print(day.start, day.count, day.pass_rate)
    """

    def __init__(self, connection: Connection, runs: "Runs") -> None:
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
        page_size: int | None = None,
    ) -> Iterator[RecordedScore]:
        """Yield single scores that match all filters, those of the latest runs first, in pages.

        A sequence matches if any of its values does; all `labels` must match. `rules` are rule ids; `run_names` are
        names of the scored runs, which ended at or after `ended_after` and before `ended_before`. `page_size` is the
        number of scores per call; 0 stands for 100.
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

    def query(
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
        """Aggregate scores into groups, ordered by time and then by group.

        There is one group for each combination of the dimensions in `by`, the values of the labels in `by_labels`, and
        the time buckets of `bucket` seconds, counted from 1970. `percentiles` are 0 to 100. The other arguments are
        those of `list`.

        Example:
            for value in (0.9, 0.7, 0.8):
                client.runs.score(run_id, name="correctness", value=value, labels={"team": "weather"})
            [group] = client.scores.query(by=["name"], by_labels=["team"], bucket=3_600, percentiles=[50])
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
        response = self._connection.call(lambda stubs: stubs.scores.QueryScores, request)
        return tuple(ScoreGroup.from_proto(group, percentiles=wanted) for group in response.groups)

    def compare(
        self,
        candidate: ScoreFilter,
        *,
        baseline: ScoreFilter,
        min_count: int = 30,
        confidence: float = 0.95,
    ) -> tuple[ScoreChange, ...]:
        """Compare scores with those of a baseline, such as an earlier period. Return a change per score name.

        With fewer than `min_count` scores on either side the trend is TOO_FEW. `confidence` is the confidence level
        of the interval of the difference, above 0.5 and below 1.

        Example:
            now = ScoreFilter(names=["correctness"], versions=["2"])
            before = ScoreFilter(names=["correctness"], versions=["1"])
            changes = client.scores.compare(now, baseline=before)
            assert not any(change.trend == "regressed" for change in changes)
        """
        request = CompareScoresRequest(
            baseline=baseline.to_proto(), candidate=candidate.to_proto(), min_count=min_count, confidence=confidence
        )
        response = self._connection.call(lambda stubs: stubs.scores.CompareScores, request)
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
    ) -> AlertStream:
        """Return a stream of alerts that start or stop firing.

        The arguments are those of `client.runs.stream`.
        """
        return AlertStream(
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
