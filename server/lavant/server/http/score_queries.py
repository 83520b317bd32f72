"""What a URL asks for of scores and rules, as the contract's requests."""

from starlette.datastructures import QueryParams

from lavant.server.errors import invalid_field
from lavant.server.http.parameters import Parameters
from lavant.server.http.queries import PAGE
from lavant.server.scores.alert_log import ALERTS_RUN
from lavant.v1.evaluation_service_pb2 import ListRulesRequest
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import ListEventsRequest
from lavant.v1.score_service_pb2 import (
    CompareScoresRequest,
    ListScoresRequest,
    QueryScoresRequest,
    ScoreDimension,
    ScoreFilter,
)

_FILTER = {
    "rule_id", "name", "evaluator", "version", "run_name", "label", "subject_run_id", "start_time", "end_time",
}  # fmt: skip
_SUMMARY = {"group_by", "group_by_label", "bucket", "percentile"}
_BASELINE = {"baseline_version", "baseline_start_time", "baseline_end_time"}


def list_scores(query: QueryParams) -> ListScoresRequest:
    """Read what a list of scores is asked for."""
    return _list(Parameters(query, _FILTER | PAGE))


def list_scores_of(query: QueryParams, run_id: str) -> ListScoresRequest:
    """The same of one run's scores."""
    request = _list(Parameters(query, (_FILTER - {"subject_run_id"}) | PAGE))
    request.filter.subject_run_id = run_id
    return request


def query_scores(query: QueryParams) -> QueryScoresRequest:
    """Read what scores are to be added up by."""
    asked = Parameters(query, _FILTER | _SUMMARY)
    return QueryScoresRequest(
        filter=_filter(asked),
        group_by=asked.enums("group_by", ScoreDimension.items(), "SCORE_DIMENSION_"),
        group_by_labels=asked.texts("group_by_label"),
        bucket=asked.span("bucket"),
        percentiles=asked.decimals("percentile"),
    )


def compare_scores(query: QueryParams) -> CompareScoresRequest:
    """Read what is to be compared: the filter's scores, with those that the parameters of the baseline change it to."""
    asked = Parameters(query, _FILTER | _BASELINE | {"min_count", "confidence"})
    if not _BASELINE & set(query):
        raise invalid_field("baseline_start_time", f"or another is needed: {', '.join(sorted(_BASELINE))}")
    candidate = _filter(asked)
    baseline = ScoreFilter()
    baseline.CopyFrom(candidate)
    if versions := asked.values("baseline_version"):
        baseline.versions[:] = versions
    if start := asked.time("baseline_start_time"):
        baseline.start_time.CopyFrom(start)
    if end := asked.time("baseline_end_time"):
        baseline.end_time.CopyFrom(end)
    return CompareScoresRequest(
        baseline=baseline,
        candidate=candidate,
        min_count=asked.number("min_count"),
        confidence=asked.decimal("confidence"),
    )


def list_rules(query: QueryParams) -> ListRulesRequest:
    """Read what a list of rules is asked for."""
    asked = Parameters(query, PAGE)
    return ListRulesRequest(page_size=asked.number("page_size"), page_token=asked.text("page_token"))


def list_alerts(query: QueryParams) -> ListEventsRequest:
    """Read what a list of changes of alerts is asked for."""
    asked = Parameters(query, PAGE)
    return ListEventsRequest(
        run_id=ALERTS_RUN,
        page_size=asked.number("page_size"),
        page_token=asked.text("page_token"),
        types=[EventType.EVENT_TYPE_ALERT_CHANGED],
    )


def _list(asked: Parameters) -> ListScoresRequest:
    return ListScoresRequest(
        filter=_filter(asked), page_size=asked.number("page_size"), page_token=asked.text("page_token")
    )


def _filter(asked: Parameters) -> ScoreFilter:
    return ScoreFilter(
        rule_ids=asked.values("rule_id"),
        names=asked.texts("name"),
        evaluators=asked.values("evaluator"),
        versions=asked.values("version"),
        run_names=asked.texts("run_name"),
        labels=asked.labels("label"),
        subject_run_id=asked.text("subject_run_id"),
        start_time=asked.time("start_time"),
        end_time=asked.time("end_time"),
    )
