"""Checks on what score queries ask for."""

from collections.abc import Sequence
from math import isfinite

from lavant.server.errors import invalid_field
from lavant.server.rpc.validation import check_labels, check_text, check_time
from lavant.server.scores.totals import Grouping
from lavant.v1 import score_service_pb2 as pb

_MAX_CHOICES = 100
_MAX_TEXT = 1_024
_MAX_GROUP_LABELS = 4
_MAX_PERCENTILES = 20
_DEFAULT_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_LEAST_BUCKET_NS = 60 * 1_000_000_000
_LARGEST_BUCKET_NS = 100 * 366 * 24 * 3600 * 1_000_000_000
_DIMENSIONS = {
    pb.SCORE_DIMENSION_RULE: "rule_id",
    pb.SCORE_DIMENSION_NAME: "name",
    pb.SCORE_DIMENSION_EVALUATOR: "evaluator",
    pb.SCORE_DIMENSION_VERSION: "version",
    pb.SCORE_DIMENSION_RUN_NAME: "run_name",
}


def check_score_filter(path: str, wanted: pb.ScoreFilter) -> None:
    """A filter of scores. Its lists are bounded, since each score's series is held against all of them."""
    for name in ("rule_ids", "names", "evaluators", "versions", "run_names"):
        choices = getattr(wanted, name)
        if len(choices) > _MAX_CHOICES:
            raise invalid_field(f"{path}.{name}", f"must be at most {_MAX_CHOICES}")
        for index, choice in enumerate(choices):
            check_text(f"{path}.{name}[{index}]", choice, at_most=_MAX_TEXT)
    check_labels(f"{path}.labels", wanted.labels)
    check_text(f"{path}.subject_run_id", wanted.subject_run_id)
    check_time(f"{path}.start_time", wanted.start_time)
    check_time(f"{path}.end_time", wanted.end_time)


def grouping_of(request: pb.QueryScoresRequest) -> Grouping:
    """What a query groups by; raises INVALID_FIELD."""
    for index, dimension in enumerate(request.group_by):
        if dimension not in _DIMENSIONS:
            known = ", ".join(map(pb.ScoreDimension.Name, _DIMENSIONS))
            raise invalid_field(f"group_by[{index}]", f"must be one of {known}")
    labels = request.group_by_labels
    if len(labels) > _MAX_GROUP_LABELS:
        raise invalid_field("group_by_labels", f"must be at most {_MAX_GROUP_LABELS}")
    for index, label in enumerate(labels):
        check_text(f"group_by_labels[{index}]", label, at_least=1, at_most=_MAX_TEXT)
    dimensions = dict.fromkeys(_DIMENSIONS[dimension] for dimension in request.group_by)
    return Grouping(tuple(dimensions), tuple(dict.fromkeys(labels)), _bucket_ns(request))


def percentiles_of(wanted: Sequence[float]) -> Sequence[float]:
    """The percentiles that a query asks for; raises INVALID_FIELD."""
    if len(wanted) > _MAX_PERCENTILES:
        raise invalid_field("percentiles", f"must be at most {_MAX_PERCENTILES}")
    for index, rank in enumerate(wanted):
        if not (isfinite(rank) and 0 < rank < 100):
            raise invalid_field(f"percentiles[{index}]", "must be above 0 and below 100")
    return wanted or _DEFAULT_PERCENTILES


def _bucket_ns(request: pb.QueryScoresRequest) -> int:
    if not request.HasField("bucket"):
        return 0
    bucket = request.bucket
    size = bucket.seconds * 1_000_000_000 + bucket.nanos
    if not (0 <= bucket.nanos < 1_000_000_000 and _LEAST_BUCKET_NS <= size <= _LARGEST_BUCKET_NS):
        raise invalid_field("bucket", "must be at least 1 min, and at most a century")
    return size
