"""What queries are answered with, as the contract has it."""

from collections.abc import Sequence

from lavant.server.scores.totals import Group, Grouping
from lavant.v1.score_service_pb2 import ScoreGroup

_MOST_FREQUENT = 100  # classes


def score_group(group: Group, grouping: Grouping, percentiles: Sequence[float]) -> ScoreGroup:
    """Tell of a group."""
    tally = group.tally
    told = ScoreGroup(
        count=tally.count,
        error_count=tally.errors,
        error_rate=tally.error_rate or 0.0,
        mean=tally.mean if tally.values else None,
        standard_deviation=tally.deviation,
        pass_rate=tally.passes / tally.verdicts if tally.verdicts else None,
        percentiles=tally.percentiles(percentiles),
        label_counts=dict(sorted(tally.classes.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FREQUENT]),
    )
    if grouping.bucket_ns:
        told.start_time.FromNanoseconds(group.start_ns)
    fields = len(grouping.dimensions)
    for name, value in zip(grouping.dimensions, group.values, strict=False):
        setattr(told, name, value)
    for key, value in zip(grouping.labels, group.values[fields:], strict=True):
        if value is not None:
            told.labels[key] = value
    return told
