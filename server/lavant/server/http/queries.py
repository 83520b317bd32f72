"""Query parameters of each path, as models that build the contract's requests.

The fields of a model have the names of the contract's fields; their aliases are the names of the parameters.
"""

from typing import Annotated, Literal

from pydantic import Field

from lavant.server.errors import invalid_field
from lavant.server.http.parameters import Flag, Labels, Many, Query, Seconds, Span, Time, Words
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode, StartPosition, StopPosition
from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.score_service_pb2 import CompareScoresRequest, ScoreDimension, ScoreFilter

LAST_EVENT_ID: str = Field("", description="ID of the last event read, for readers that cannot set Last-Event-ID.")
EventTypeWord = Annotated[int, Words(EventType, "EVENT_TYPE_")]


class PageQuery(Query):
    """Parameters of lists."""

    page_size: int | None = Field(None, ge=1, le=1000, description="Maximum number of items. Default 100.")
    page_token: str = Field("", description="next_page_token of the previous page. Empty: the first page.")


class EvaluationsQuery(PageQuery):
    """Parameters of a list of evaluations."""

    states: Many[Annotated[int, Words(RunState, "RUN_STATE_")]] = Field(
        [], alias="state", description="The run is in one of these states."
    )
    names: Many[str] = Field([], alias="name", description="The name of the run is one of these.")
    labels: Labels = Field({}, alias="label", description="The run has all of these labels, each NAME=VALUE.")
    conversation_id: str = Field("", description="The run belongs to this conversation.")
    parent_run_id: str = Field("", description="The run was started by this run.")
    created_after: Time | None = Field(None, description="The run was created at or after this time.")
    created_before: Time | None = Field(None, description="The run was created before this time.")


class RunsQuery(EvaluationsQuery):
    """Parameters of a list of runs."""

    kinds: Many[Annotated[int, Words(RunKind, "RUN_KIND_")]] = Field(
        [], alias="kind", description="The run is of one of these kinds."
    )
    include_system_runs: Flag = Field(
        False, description="System runs too, which the server writes itself: the audit, alerts and results of rules."
    )


class WatchQuery(RunsQuery):
    """Parameters of a watch of runs."""

    last_event_id: str = LAST_EVENT_ID


class EventsQuery(PageQuery):
    """Parameters of a list of events."""

    types: Many[EventTypeWord] = Field([], alias="type", description="Types of events to return. Empty: all.")


class StreamQuery(Query):
    """Parameters of a stream of events."""

    last_event_id: str = LAST_EVENT_ID
    consumer_id: str = Field(
        "", alias="consumer", description="ID of the reader, which may have one stream per run. Empty: a new ID."
    )
    session_id: str = Field(
        "", alias="session", description="ID of one incarnation of the reader, for reconnects without Last-Event-ID."
    )
    take_over: Flag = Field(False, description="Displace the stream of another session of this consumer.")
    deltas: Annotated[int, Words(DeltaMode, "DELTA_MODE_")] = Field(0, description="How to send deltas. Default all.")
    types: Many[EventTypeWord] = Field([], alias="type", description="Types of events to send. Empty: all.")
    start: Annotated[int, Words(StartPosition, "START_POSITION_")] = Field(
        0, description="Where to start without Last-Event-ID. Default beginning."
    )
    stop: Annotated[int, Words(StopPosition, "STOP_POSITION_")] = Field(
        0, description="Where to end. Default run_finished."
    )
    idle_timeout: Seconds | None = Field(
        None, description="Seconds without an event after which the stream ends. 1 to 86,400; default 3,600."
    )
    heartbeat_interval: Seconds | None = Field(
        None, description="Seconds of silence after which a comment is sent. 1 to 60; default 15."
    )
    wait_for_run: Flag = Field(False, description="Wait for a run that does not exist yet.")


class RunStreamQuery(StreamQuery):
    """Parameters of a stream of a run."""

    format: Literal["lavant", "ag-ui", "ai-sdk"] = Field(
        "lavant",
        description="Protocol of the data: lavant's own; AG-UI events; chunks of the AI SDK's UI message stream. "
        "The latter two are of all events from the first: without type, and without start=now.",
    )


class ScoreFilterQuery(Query):
    """Parameters that select scores. Lists with an empty value select scores that lack what they name."""

    rule_ids: list[str] = Field(
        [], alias="rule_id", description="One of these rules recorded the score; empty: feedback."
    )
    names: Many[str] = Field([], alias="name", description="The name of the score is one of these.")
    evaluators: list[str] = Field([], alias="evaluator", description="The name of the evaluator is one of these.")
    versions: list[str] = Field([], alias="version", description="The version of the evaluator is one of these.")
    run_names: Many[str] = Field([], alias="run_name", description="The name of the scored run is one of these.")
    labels: Labels = Field({}, alias="label", description="The score has all of these labels, each NAME=VALUE.")
    subject_ended_after: Time | None = Field(None, description="The scored run ended at or after this time.")
    subject_ended_before: Time | None = Field(None, description="The scored run ended before this time.")

    def score_filter(self, **more: str) -> ScoreFilter:
        """Return the filter."""
        return self.message(ScoreFilter, **more)


class RunScoresQuery(ScoreFilterQuery, PageQuery):
    """Parameters of a list of the scores of one run."""


class ScoresQuery(RunScoresQuery):
    """Parameters of a list of scores."""

    subject_run_id: str = Field("", description="The score is of this run.")


class ScoreTotalsQuery(ScoreFilterQuery):
    """Parameters of totals of scores."""

    subject_run_id: str = Field("", description="The score is of this run.")
    group_by: Many[Annotated[int, Words(ScoreDimension, "SCORE_DIMENSION_")]] = Field(
        [], description="Dimensions to group by. Empty: one group of all scores."
    )
    group_by_labels: Many[str] = Field([], alias="group_by_label", description="Keys of labels to group by. At most 4.")
    bucket: Span | None = Field(
        None, description="Length of the intervals of time to group by: seconds, or a number of m, h or d."
    )
    percentiles: Many[float] = Field(
        [], alias="percentile", description="Percentiles to compute, above 0 and below 100. Default 50, 90, 95, 99."
    )


class ScoreComparisonQuery(ScoreFilterQuery):
    """Parameters of a comparison of scores: the filter, which `baseline_...` change for the baseline."""

    subject_run_id: str = Field("", description="The score is of this run.")
    baseline_version: list[str] = Field([], description="The version of the baseline's evaluator is one of these.")
    baseline_ended_after: Time | None = Field(None, description="The baseline's run ended at or after this time.")
    baseline_ended_before: Time | None = Field(None, description="The baseline's run ended before this time.")
    min_count: int | None = Field(None, description="Values that each side needs for a trend. At least 2; default 30.")
    confidence: float | None = Field(None, description="Confidence of a trend, above 0.5 and below 1. Default 0.95.")

    def request(self) -> CompareScoresRequest:
        """Return the request. Raises INVALID_FIELD if no parameter describes the baseline."""
        baseline_fields = {name for name in type(self).model_fields if name.startswith("baseline_")}
        if not baseline_fields & self.model_fields_set:
            raise invalid_field("baseline_ended_after", f"is missing; set one of {', '.join(sorted(baseline_fields))}")
        candidate, baseline = self.score_filter(), self.score_filter()
        if self.baseline_version:
            baseline.versions[:] = self.baseline_version
        if self.baseline_ended_after is not None:
            baseline.subject_ended_after.CopyFrom(self.baseline_ended_after)
        if self.baseline_ended_before is not None:
            baseline.subject_ended_before.CopyFrom(self.baseline_ended_before)
        return self.message(CompareScoresRequest, baseline=baseline, candidate=candidate)
