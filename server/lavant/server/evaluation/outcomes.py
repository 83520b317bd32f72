"""Outcomes of samples, each recorded as one event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract.limits import MAX_BATCH_BYTES
from lavant.internal.v1.system_record_pb2 import SamplesReturned, SessionEnded, SystemRecord
from lavant.server.errors import ServiceError, invalid_field
from lavant.server.evaluation.ledger import DIGEST_MARK, Ledger, Sample
from lavant.server.store.system_logs import system_event
from lavant.server.streaming.frames import timestamp
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, SampleReturn
from lavant.v1.event_pb2 import Evaluator, Event, RowFinished, Score
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Error, Run

_DEFAULT_ATTEMPTS = 5
_FIRST_BACKOFF = 1.0  # seconds
_LONGEST_BACKOFF = 300.0
_MOST_CHARACTERS = 400  # of a failure's message, which is stored once per evaluator
_MOST_BYTES = MAX_BATCH_BYTES - (32 << 10)
MOST_FAILED_SCORES = 195  # of a sample that failed: with two names and an error each they must fit in a batch
_UNNAMED = "evaluation"  # the score that fails if neither the rule nor the worker names any


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A run to evaluate, as far as its scores name it. `time` is its end, or now if it was deleted."""

    run_id: str
    name: str
    time: Timestamp

    @classmethod
    def of(cls, run_id: str, run: Run | None, now_ns: int) -> "Subject":
        """Return the subject of a run as it ended; None: it was deleted."""
        if run is None:
            return cls(run_id=run_id, name="", time=timestamp(now_ns))
        return cls(run_id=run_id, name=run.name, time=run.end_time)


def most_attempts(rule: Rule) -> int:
    """Return how often a sample is assigned at most."""
    return rule.max_attempts if rule.HasField("max_attempts") else _DEFAULT_ATTEMPTS


def complete(ledger: Ledger, rule: Rule, request: CompleteSampleRequest, subject: Subject, now_ns: int) -> list[Event]:
    """Return the event of a worker's result; none if it is a repetition. Raises SAMPLE_LOST."""
    digest = _digest(request)
    sample = ledger.samples.get(request.run_id)
    if sample is None or sample.session_id != request.session_id:
        if ledger.is_reported(digest):
            return []
        raise ServiceError(
            ErrorReason.ERROR_REASON_SAMPLE_LOST,
            f"the session does not hold run {request.run_id}: it is done, or somebody else's by now; drop it",
            metadata={"run_id": request.run_id},
        )
    event = _outcome(rule, request, sample, subject, now_ns)
    if event.ByteSize() > _MOST_BYTES:
        raise invalid_field(
            "scores.scores",
            f"must take at most {_MOST_BYTES} bytes in all, labels included; shorten the explanations",
        )
    event.event_id = DIGEST_MARK + digest
    return [event]


def return_samples(ledger: Ledger, request: CompleteSampleRequest, now_ns: int) -> list[Event]:
    """Return the record of a session that returns several samples; none if it holds none of them any more."""
    held = {sample.run_id for sample in ledger.held_by(request.session_id)}
    run_ids = [run_id for run_id in dict.fromkeys(request.returned.run_ids) if run_id in held]
    return [_returned(run_ids, request.returned, now_ns)] if run_ids else []


def end_session(ledger: Ledger, session_id: str) -> list[Event]:
    """Return the record of a session that returns all of its samples; none if it has done so before."""
    if session_id in ledger.over:
        return []
    return [system_event(SystemRecord(session_ended=SessionEnded(session_id=session_id)))]


def score_names(evaluators: Iterable[Evaluator]) -> dict[str, Evaluator]:
    """Return the names of the scores that evaluators produce, each with the first evaluator that produces it."""
    names: dict[str, Evaluator] = {}
    for one in evaluators:
        for name in one.score_names or (one.name,):
            names.setdefault(name, one)
    return names


def fail(rule: Rule, subject: Subject, error: Error, evaluators: Sequence[Evaluator] = ()) -> Event:
    """Return the event of a sample that cannot be evaluated: a failed score per evaluator of the rule and the worker.

    There is at least one, so that every sample counts among the scores.
    """
    error = _short(error)
    names = score_names([*rule.evaluators, *evaluators]) or {_UNNAMED: Evaluator()}
    scores = [
        Score(name=name, evaluator=Evaluator(name=one.name, version=one.version), error=error)
        for name, one in islice(names.items(), MOST_FAILED_SCORES)
    ]
    return _row(rule, subject, scores, {}, error=error)


def _outcome(rule: Rule, request: CompleteSampleRequest, sample: Sample, subject: Subject, now_ns: int) -> Event:
    outcome = request.WhichOneof("outcome")
    if outcome == "scores":
        scores = request.scores
        duration = scores.duration if scores.HasField("duration") else None
        return _row(rule, subject, scores.scores, scores.labels, duration=duration)
    if outcome == "returned":
        return _returned([sample.run_id], request.returned, now_ns)
    if sample.attempts >= most_attempts(rule):
        return fail(rule, subject, request.failure, request.evaluators)
    backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (sample.attempts - 1))
    delay_ns = max(round(backoff * 1e9), request.retry_delay.ToNanoseconds())
    retry_time = timestamp(now_ns + delay_ns)
    returned = SamplesReturned(run_ids=[sample.run_id], error=_short(request.failure), retry_time=retry_time)
    return system_event(SystemRecord(samples_returned=returned))


def _returned(run_ids: Sequence[str], sample_return: SampleReturn, now_ns: int) -> Event:
    """Return the event of samples that are returned without having been evaluated."""
    returned = SamplesReturned(run_ids=run_ids)
    if sample_return.HasField("delay"):
        returned.retry_time.CopyFrom(timestamp(now_ns + sample_return.delay.ToNanoseconds()))
    if sample_return.HasField("error"):
        returned.error.CopyFrom(_short(sample_return.error))
        returned.is_outage = True
    return system_event(SystemRecord(samples_returned=returned))


def _short(error: Error) -> Error:
    return Error(
        type=error.type[:_MOST_CHARACTERS], message=error.message[:_MOST_CHARACTERS], retryable=error.retryable
    )


def _row(rule: Rule, subject: Subject, scores: Iterable[Score], labels: Mapping[str, str], **result: Any) -> Event:
    row = RowFinished(
        row_id=subject.run_id,
        iteration=1,
        subject_run_id=subject.run_id,
        scores=scores,
        rule_id=rule.rule_id,
        subject_name=subject.name,
        subject_time=subject.time,
        labels={**rule.labels, **labels},
        **result,
    )
    return Event(row_finished=row)


def _digest(request: CompleteSampleRequest) -> str:
    return sha256(request.SerializeToString(deterministic=True)).hexdigest()[:32]
