"""Scores as rows of the index."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from pydantic_core import to_json

from lavant.server.model import RunKey
from lavant.server.scores.tally import Kind
from lavant.v1.event_pb2 import Event, Score, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch

_LARGEST = 1e100  # larger numbers count as this: their squares must have room
_MARK_BYTES = 16


class Source(NamedTuple):
    """The log that a score was recorded in; `created_ns` tells lives of the same run_id apart."""

    key: RunKey
    created_ns: int


class Found(NamedTuple):
    """What was read of a log that tells of a tenant's runs: its ScoreRecorded events, as an EventBatch has them."""

    tenant: str
    source: Source
    events: bytes


class Series(NamedTuple):
    """What scores have in common that can be added up. `labels` is a JSON object with sorted keys."""

    tenant: str
    rule_id: str
    name: str
    evaluator: str
    version: str
    run_name: str
    labels: str


class Row(NamedTuple):
    """A score. `value` is None unless it is a number or a verdict, `label` empty unless it is a class."""

    series: Series
    time_ns: int
    recorded_ns: int
    kind: Kind
    value: float | None
    label: str
    mark: bytes
    subject: str
    record: bytes


def rows_of(found: Found) -> Iterator[Row]:
    """Turn the scores that were found into rows."""
    return (_row(found, event) for event in EventBatch.FromString(found.events).events)


def _row(found: Found, event: Event) -> Row:
    recorded = event.score_recorded
    kind, value, label = _said(recorded.score)
    recorded_ns = event.record_time.ToNanoseconds()
    return Row(
        series=_series(found.tenant, recorded),
        time_ns=recorded.subject_time.ToNanoseconds() if recorded.HasField("subject_time") else recorded_ns,
        recorded_ns=recorded_ns,
        kind=kind,
        value=value,
        label=label,
        mark=_mark(found.source, event.sequence),
        subject=recorded.subject_run_id,
        record=recorded.SerializeToString(),
    )


def _mark(source: Source, sequence: int) -> bytes:
    """Tell scores apart, and order those of the same time, in the same way on every replica."""
    name = "\0".join((*source.key, str(source.created_ns), str(sequence)))
    return blake2b(name.encode(), digest_size=_MARK_BYTES).digest()


def _said(score: Score) -> tuple[Kind, float | None, str]:
    match score.WhichOneof("value"):
        case "number":
            return Kind.NUMBER, max(-_LARGEST, min(score.number, _LARGEST)), ""
        case "passed":
            return Kind.VERDICT, float(score.passed), ""
        case "label":
            return Kind.CLASS, None, score.label
        case _:
            return Kind.ERROR, None, ""


def _series(tenant: str, recorded: ScoreRecorded) -> Series:
    score = recorded.score
    labels = to_json({key: recorded.labels[key] for key in sorted(recorded.labels)}).decode()
    evaluator = score.evaluator
    return Series(
        tenant, recorded.rule_id, score.name, evaluator.name, evaluator.version, recorded.subject_name, labels
    )
