"""A worker: evaluates the samples of a rule, and pauses while its evaluators are unavailable."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_evals.evaluators import Evaluator

from lavant.client._async.api.rules import AsyncRules
from lavant.client._async.api.runs import AsyncRuns
from lavant.client._async.calls import Call
from lavant.client._async.concurrency import call_handler
from lavant.client._async.subscription import Limits, Subscription
from lavant.client._async.transport import Connection
from lavant.client._publishing import payloads as _payloads
from lavant.client._reading.plan import Session, Sessions
from lavant.client._wire.arguments import check_optional_seconds, check_seconds, duration, exact_duration
from lavant.client.errors import InvalidField
from lavant.client.evals.outages import first_failure
from lavant.client.evals.worker.attempts import Attempt, Attempts
from lavant.client.evals.worker.availability import Admission, Pauses
from lavant.client.evals.worker.samples import AssignedSamples
from lavant.client.evaluations import EvaluatedRun, ProcessedSamples
from lavant.client.models import ErrorInfo
from lavant.client.rules import EvaluatorInfo, Rule, evaluator_infos
from lavant.v1.evaluation_service_pb2 import (
    Sample,
    SampleReturn,
    SampleRunsRequest,
    SampleRunsResponse,
    SamplesCaughtUp,
    SampleScores,
)

_MOST_SAMPLES = 1_000
_MOST_EVALUATORS = 100
_HANDLER_TIMEOUT = 30.0
_LONGEST_WAIT = 30.0  # seconds that a worker which stops when caught up waits for a sample's next attempt

_log = logging.getLogger("lavant.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleWorker:
    """Arguments of `AsyncEvaluations.process_stream`. Raises ValueError or TypeError for invalid ones."""

    rule_id: str
    evaluators: Sequence[Evaluator[Any, Any, Any]]
    max_concurrency: int
    labels: Mapping[str, str]
    timeout: float | None
    worker_id: str
    until_caught_up: bool
    on_evaluated: Callable[[EvaluatedRun], object] | None
    lease: float
    heartbeat_interval: float
    reconnect_timeout: float | None
    take_over: bool

    def __post_init__(self) -> None:
        if not self.evaluators:
            raise ValueError("evaluators must be one or more")
        if not 1 <= self.max_concurrency <= _MOST_SAMPLES:
            raise ValueError(f"max_concurrency must be 1 to {_MOST_SAMPLES:,}, not {self.max_concurrency}")
        check_optional_seconds("timeout", self.timeout)
        check_seconds("lease", self.lease)
        check_seconds("heartbeat_interval", self.heartbeat_interval)
        check_optional_seconds("reconnect_timeout", self.reconnect_timeout)

    async def run(self, connection: Connection, runs: AsyncRuns) -> ProcessedSamples:
        """Evaluate samples until cancelled, or until caught up if that is wanted."""
        session = Sessions().begin(self.rule_id, "")
        samples = AssignedSamples(connection, self.rule_id, session.id)
        attempts = Attempts(self.evaluators, self.timeout, runs, connection.clock)
        pauses = Pauses(self.rule_id, connection.clock, limited=self.until_caught_up)
        counts = Counter[str]()
        was_opened = False
        try:
            while True:
                stream = _SampleStream(self, attempts, samples, pauses, counts)
                try:
                    is_done = await stream.process(self._subscribe(connection, session, was_opened=was_opened))
                finally:
                    was_opened = was_opened or stream.was_opened
                if is_done or not await pauses.pause():
                    break
        finally:
            if was_opened:
                await samples.return_all()
        waiting = stream.waiting
        if pauses.error is not None:
            waiting = (await AsyncRules(connection).get(self.rule_id)).progress.samples_waiting
        return ProcessedSamples(
            **{name: counts[name] for name in ("evaluated", "failed", "lost", "returned")},
            waiting=waiting,
            error=pauses.error,
        )

    def check(self, rule: Rule) -> None:
        """Raise ValueError if the rule names an evaluator that this worker lacks: its scores would be missing."""
        names = {name for one in self.evaluators for name in _names(one)}
        missing = [evaluator.name for evaluator in rule.evaluators if evaluator.name not in names]
        if missing:
            raise ValueError(f"rule {rule.id} requires the scores {', '.join(missing)}: pass their evaluators as well")

    def infos(self) -> list[EvaluatorInfo]:
        """Describe the evaluators, one per name, as many as a rule may have, without settings, which may be large."""
        infos = {info.name: info.model_copy(update={"config": None}) for info in evaluator_infos(self.evaluators)}
        return [*infos.values()][:_MOST_EVALUATORS]

    def _subscribe(
        self, connection: Connection, session: Session, *, was_opened: bool
    ) -> Subscription[SampleRunsResponse]:
        async def open_call(attempt: int, token: str, opened: bool) -> Call[SampleRunsResponse]:
            request = SampleRunsRequest(
                rule_id=self.rule_id,
                worker_id=self.worker_id,
                session_id=session.id,
                attempt=attempt,
                take_over=self.take_over and not (opened or was_opened),
                resume_token=token,
                max_samples=self.max_concurrency,
                lease=duration(self.lease),
                heartbeat_interval=duration(self.heartbeat_interval),
            )
            return await connection.open(lambda stubs: stubs.evaluation.SampleRuns, request)

        return Subscription(
            connection,
            open_call,
            session,
            Sessions(),
            resume_token="",
            limits=Limits(None, None, connection.clock),
            reconnect_timeout=self.reconnect_timeout,
            heartbeat_interval=self.heartbeat_interval,
        )


class _SampleStream:
    """One stream of samples, from its opening until it ends or the evaluators are unavailable.

    Each sample is evaluated in a task of its own.
    """

    def __init__(
        self,
        worker: SampleWorker,
        attempts: Attempts,
        samples: AssignedSamples,
        pauses: Pauses,
        counts: Counter[str],
    ) -> None:
        self.was_opened = False
        self.waiting = 0  # samples that wait for another attempt when all others are done
        self._worker = worker
        self._attempts = attempts
        self._samples = samples
        self._pauses = pauses
        self._counts = counts
        self._evaluators = [info.to_proto() for info in worker.infos()]
        self._admission = Admission(pauses)
        self._tasks: set[asyncio.Task[None]] = set()
        self._active = 0
        self._has_ended = self._is_caught_up = False
        self._done = asyncio.Event()

    async def process(self, subscription: Subscription[SampleRunsResponse]) -> bool:
        """Evaluate samples until all are done; return False if the evaluators became unavailable before."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(subscription, group))
                await self._done.wait()
                for task in (reading, *self._tasks):  # those that still wait for admission
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            subscription.close()
        if not self._admission.is_closed:
            return True
        await self._samples.return_held()
        return False

    async def _read(self, subscription: Subscription[SampleRunsResponse], group: asyncio.TaskGroup) -> None:
        while (frame := await subscription.next()) is not None:
            if frame.HasField("opened"):
                self.was_opened = True
                rule = Rule.from_proto(frame.opened.rule)
                self._worker.check(rule)
                self._attempts.set_rule(rule)
            elif frame.HasField("samples"):
                self._is_caught_up = False
                for sample in frame.samples.samples:
                    if self._samples.add(sample):
                        task = group.create_task(self._process(sample))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            elif frame.HasField("caught_up"):
                self._is_caught_up = _is_all_done(frame.caught_up)
                self.waiting = frame.caught_up.progress.samples_waiting
                self._check_done()
        self._has_ended = True
        self._check_done()

    def _check_done(self) -> None:
        """Set `_done` if no samples are left, or none can be evaluated."""
        is_over = self._has_ended or (self._is_caught_up and self._worker.until_caught_up)
        if (is_over and not self._samples) or (self._admission.is_closed and not self._active):
            self._done.set()

    async def _process(self, sample: Sample) -> None:
        current: Sample | None = sample
        while current is not None:
            await self._admission.enter()
            self._active += 1
            try:
                current = await self._evaluate(current)
            finally:
                self._active -= 1
        self._check_done()

    async def _evaluate(self, sample: Sample) -> Sample | None:
        """Make an attempt and report it; return the sample if it was assigned once more meanwhile."""
        attempt = await self._attempts.make(sample)
        counts = True
        if attempt.is_down and attempt.evaluated.error is not None:
            counts = self._admission.fail(attempt.evaluated.error, attempt.retry_after)
        elif attempt.evaluated.error is None:
            self._admission.succeed()
        else:
            self._admission.leave()
        held, reported = await self._report(attempt, counts=counts)
        again = self._samples.remove(reported.run.id, done=reported.error is None)
        self._count(reported, held=held, again=again is not None, counts=counts)
        if held and counts and self._worker.on_evaluated is not None:
            await call_handler(self._worker.on_evaluated, reported, _HANDLER_TIMEOUT)
        return again

    def _count(self, reported: EvaluatedRun, *, held: bool, again: bool, counts: bool) -> None:
        if not held:
            self._counts["lost"] += 1
            _log.debug("run %s is evaluated by another worker", reported.run.id)
        elif reported.error is None:
            self._counts["evaluated"] += 1
        elif counts and self._attempts.is_last(reported.attempt):
            self._counts["failed"] += 1
        else:
            self._counts["returned"] += 1
            if not again:
                self._is_caught_up = False  # the sample is delayed now; the server reports again when it is caught up

    async def _report(self, attempt: Attempt, *, counts: bool) -> tuple[bool, EvaluatedRun]:
        """Report an attempt to the server; return whether the sample was still held, and what was reported."""
        evaluated = attempt.evaluated
        if evaluated.error is None:
            scores = SampleScores(
                scores=[score.to_proto() for score in evaluated.scores],
                labels=self._worker.labels,
                duration=exact_duration(evaluated.duration),
            )
            try:
                return await self._samples.complete(evaluated.run.id, scores=scores), evaluated
            except InvalidField as refused:
                error = ErrorInfo.from_proto(_payloads.error_of(refused))
                evaluated = evaluated.model_copy(update={"scores": (), "error": error})
        failure = None if evaluated.error is None else evaluated.error.to_proto()
        outcome: dict[str, Any]
        if counts:
            delay = duration(attempt.retry_after) if attempt.retry_after else None
            outcome = {"failure": failure, "retry_delay": delay, "evaluators": self._evaluators}
        else:
            outcome = {"returned": SampleReturn(delay=duration(self._pauses.seconds), error=failure)}
        return await self._samples.complete(evaluated.run.id, **outcome), evaluated


def _is_all_done(caught_up: SamplesCaughtUp) -> bool:
    """Return whether no sample is left that is worth waiting for."""
    delay = caught_up.next_retry_delay
    return not caught_up.HasField("next_retry_delay") or delay.ToMilliseconds() / 1000 > _LONGEST_WAIT


def _names(evaluator: Evaluator[Any, Any, Any]) -> set[str]:
    return {str(evaluator.get_default_evaluation_name()), evaluator.get_serialization_name()}
