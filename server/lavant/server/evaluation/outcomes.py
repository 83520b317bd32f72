"""What becomes of a sample: the events of it, all in one batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract.limits import MAX_BATCH_BYTES
from lavant.server.errors import LavantError, invalid_field
from lavant.server.evaluation.desk import size_of
from lavant.server.evaluation.ledger import DIGEST_MARK, Ledger, Sample
from lavant.server.model import RunKey, is_terminal
from lavant.server.store.port import Engine
from lavant.server.streaming.frames import timestamp
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, SampleReturn, SampleScores
from lavant.v1.event_pb2 import Evaluator, Event, RowFinished, SampleReturned, SamplesLeased, Score, ScoreRecorded
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Error, Run

DEFAULT_ATTEMPTS = 5
_FIRST_BACKOFF = 1.0  # seconds
_LONGEST_BACKOFF = 300.0
_MOST_CHARACTERS = 400  # of what is said of a failure, as often as there are evaluators
_MOST_BYTES = MAX_BATCH_BYTES - (32 << 10)
_MAX_FAILED_BYTES = 800_000  # of the scores of a sample that failed: they must fit in a batch
_FAILED_SCORE_BYTES = 4_096  # without labels
_UNNAMED = "evaluation"  # the score that fails where nobody has told what there would be


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A run that is judged: what its scores tell of it. `time` is its end, or now if it is gone."""

    run_id: str
    name: str
    time: Timestamp

    @classmethod
    def of(cls, run_id: str, run: Run | None, now_ns: int) -> "Subject":
        """Of a run as it ended; None: it was deleted."""
        if run is None:
            return cls(run_id=run_id, name="", time=timestamp(now_ns))
        return cls(run_id=run_id, name=run.name, time=run.end_time)


async def find_ended(engine: Engine, key: RunKey) -> Run | None:
    """Look up a run as it ended; None: it was deleted, though there may be another of its id that goes on."""
    try:
        run = await engine.get_run(key)
    except LavantError as error:
        if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
            return None
        raise
    return run if is_terminal(run.state) else None


def most_attempts(rule: Rule) -> int:
    """How often a sample is handed out at most."""
    return rule.max_attempts or DEFAULT_ATTEMPTS


def complete(ledger: Ledger, rule: Rule, request: CompleteSampleRequest, subject: Subject, now_ns: int) -> list[Event]:
    """The events of what a worker says of a sample; none: it has said so before. Raises SAMPLE_LOST."""
    digest = _digest(request)
    sample = ledger.samples.get(request.run_id)
    if sample is None or sample.session_id != request.session_id:
        if ledger.said(digest):
            return []
        raise LavantError(
            ErrorReason.ERROR_REASON_SAMPLE_LOST,
            f"the session does not hold run {request.run_id}: it is done, or somebody else's by now; drop it",
            metadata={"run_id": request.run_id},
        )
    events = _events(rule, request, sample, subject, now_ns)
    if size_of(events) > _MOST_BYTES:
        raise invalid_field(
            "scores.scores",
            f"must take at most {_MOST_BYTES // 2} bytes in all, labels included; shorten the explanations",
        )
    events[-1].event_id = DIGEST_MARK + digest
    return events


def end_session(ledger: Ledger, session_id: str) -> list[Event]:
    """The event of a session that gives back all that it holds; none: it has done so before."""
    return [] if session_id in ledger.over else [Event(samples_leased=SamplesLeased(session_id=session_id))]


def score_names(evaluators: Iterable[Evaluator]) -> dict[str, Evaluator]:
    """The names of the scores that evaluators give, each with the first evaluator that gives it."""
    names: dict[str, Evaluator] = {}
    for one in evaluators:
        for name in one.score_names or (one.name,):
            names.setdefault(name, one)
    return names


def most_failed_scores(rule: Rule) -> int:
    """How many failed scores of one sample fit in a batch, with the rule's labels on each."""
    labels_size = sum(len(key.encode()) + len(value.encode()) + 8 for key, value in rule.labels.items())
    return _MAX_FAILED_BYTES // (labels_size + _FAILED_SCORE_BYTES)


def fail(rule: Rule, subject: Subject, error: Error, evaluators: Sequence[Evaluator] = ()) -> list[Event]:
    """The events of a sample that cannot be judged: a failed score of each evaluator of the rule and of the worker.

    There is one at least, so that every sample counts among the scores.
    """
    error = _short(error)
    names = score_names([*rule.evaluators, *evaluators]) or {_UNNAMED: Evaluator()}
    kept = [*names.items()][: most_failed_scores(rule)]
    scores = [Score(name=name, evaluator=_told(one), error=error) for name, one in kept]
    return [*_recorded(rule, subject, scores, {}), _row(subject, (), error=error)]


def _events(rule: Rule, request: CompleteSampleRequest, sample: Sample, subject: Subject, now_ns: int) -> list[Event]:
    outcome = request.WhichOneof("outcome")
    if outcome == "scores":
        return _judged(rule, subject, request.scores)
    if outcome == "returned":
        return [_returned(sample, request.returned, now_ns)]
    if sample.attempts >= most_attempts(rule):
        return fail(rule, subject, request.failure, request.evaluators)
    backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (sample.attempts - 1))
    delay_ns = max(round(backoff * 1e9), request.retry_delay.ToNanoseconds())
    retry_time = timestamp(now_ns + delay_ns)
    returned = SampleReturned(run_id=sample.run_id, error=_short(request.failure), retry_time=retry_time)
    return [Event(sample_returned=returned)]


def _returned(sample: Sample, said: SampleReturn, now_ns: int) -> Event:
    """The event of a sample that is returned without having been evaluated."""
    returned = SampleReturned(run_id=sample.run_id)
    if said.HasField("delay"):
        returned.retry_time.CopyFrom(timestamp(now_ns + said.delay.ToNanoseconds()))
    if said.HasField("error"):
        returned.error.CopyFrom(_short(said.error))
        returned.uncounted = True
    return Event(sample_returned=returned)


def _short(error: Error) -> Error:
    return Error(
        type=error.type[:_MOST_CHARACTERS], message=error.message[:_MOST_CHARACTERS], retryable=error.retryable
    )


def _told(evaluator: Evaluator) -> Evaluator:
    """An evaluator as its scores tell of it."""
    return Evaluator(name=evaluator.name, version=evaluator.version, config_json=evaluator.config_json)


def _judged(rule: Rule, subject: Subject, said: SampleScores) -> list[Event]:
    duration = said.duration if said.HasField("duration") else None
    return [*_recorded(rule, subject, said.scores, said.labels), _row(subject, said.scores, duration=duration)]


def _recorded(rule: Rule, subject: Subject, scores: Sequence[Score], labels: Mapping[str, str]) -> list[Event]:
    return [
        Event(
            score_recorded=ScoreRecorded(
                subject_run_id=subject.run_id,
                score=score,
                rule_id=rule.rule_id,
                subject_name=subject.name,
                subject_time=subject.time,
                labels={**rule.labels, **labels},
            )
        )
        for score in scores
    ]


def _row(
    subject: Subject, scores: Sequence[Score], *, error: Error | None = None, duration: Duration | None = None
) -> Event:
    row = RowFinished(
        row_id=subject.run_id,
        iteration=1,
        subject_run_id=subject.run_id,
        scores=scores,
        error=error,
        duration=duration,
    )
    return Event(row_finished=row)


def _digest(request: CompleteSampleRequest) -> str:
    return sha256(request.SerializeToString(deterministic=True)).hexdigest()[:32]
