"""A worker that judges the runs which a rule samples."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_evals.evaluators import Evaluator

from lavant.client import _payloads
from lavant.client._arguments import check_optional_seconds, check_seconds, duration, exact_duration
from lavant.client._async.calls import Call
from lavant.client._async.concurrency import call_handler
from lavant.client._async.connection import Connection
from lavant.client._async.limits import Limits
from lavant.client._async.rules import AsyncRules
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.subscription import Subscription
from lavant.client._errors import InvalidField
from lavant.client._judged import JudgedRun, ProcessedSamples
from lavant.client._models import ErrorInfo, Run
from lavant.client._rows import Score
from lavant.client._rules import Rule
from lavant.client._sessions import Session, Sessions
from lavant.client.integrations._first_failure import first_failure
from lavant.client.integrations._judging_run import judge
from lavant.client.integrations._judging_samples import HeldSamples
from lavant.v1.evaluation_service_pb2 import Sample, SampleRunsRequest, SampleRunsResponse, SampleScores

_MOST_SAMPLES = 1_000
_LARGEST_PAGE = 1_000
_HANDLER_TIMEOUT = 30.0
_RETRY_WATCH = 5.0  # seconds

_log = logging.getLogger("lavant.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What `AsyncEvaluations.process_stream` is given. Raises ValueError or TypeError for what makes no sense."""

    rule_id: str
    evaluators: Sequence[Evaluator[Any, Any, Any]]
    max_concurrency: int
    labels: Mapping[str, str]
    timeout: float | None
    worker_id: str
    until_caught_up: bool
    on_judged: Callable[[JudgedRun], object] | None
    lease: float
    heartbeat_interval: float
    reconnect_timeout: float | None
    take_over: bool

    def __post_init__(self) -> None:
        if not self.evaluators:
            raise ValueError("evaluators must be one or more: nobody else judges the samples")
        if not 1 <= self.max_concurrency <= _MOST_SAMPLES:
            raise ValueError(f"max_concurrency must be 1 to {_MOST_SAMPLES:,}, not {self.max_concurrency}")
        check_optional_seconds("timeout", self.timeout)
        check_seconds("lease", self.lease)
        check_seconds("heartbeat_interval", self.heartbeat_interval)
        check_optional_seconds("reconnect_timeout", self.reconnect_timeout)

    async def run(self, connection: Connection, runs: AsyncRuns) -> ProcessedSamples:
        """Judge samples until all is done, if that is wanted, or for ever."""
        session = Sessions().begin(self.rule_id, "")
        samples = HeldSamples(connection, self.rule_id, session.id)
        return await _Shift(self, connection, runs, samples).work(self._subscribe(connection, session))

    def check(self, rule: Rule) -> None:
        """Raise ValueError if the rule names an evaluator that is not here: its scores would be missing."""
        here = {name for one in self.evaluators for name in _names(one)}
        missing = [evaluator.name for evaluator in rule.evaluators if evaluator.name not in here]
        if missing:
            raise ValueError(f"rule {rule.id} asks for {', '.join(missing)}: pass what gives these scores as well")

    def _subscribe(self, connection: Connection, session: Session) -> Subscription[SampleRunsResponse]:
        def open_call(attempt: int, token: str, opened: bool) -> Call[SampleRunsResponse]:
            request = SampleRunsRequest(
                rule_id=self.rule_id,
                worker_id=self.worker_id,
                session_id=session.id,
                attempt=attempt,
                take_over=self.take_over and not opened,
                resume_token=token,
                max_samples=self.max_concurrency,
                lease=duration(self.lease),
                heartbeat_interval=duration(self.heartbeat_interval),
            )
            return connection.sample_runs(request)

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


class _Shift:
    """A worker at work: reads the samples that come, and judges each in a task of its own."""

    def __init__(self, worker: Worker, connection: Connection, runs: AsyncRuns, samples: HeldSamples) -> None:
        self._worker = worker
        self._clock = connection.clock
        self._rules = AsyncRules(connection)
        self._runs = runs
        self._samples = samples
        self._counts = Counter[str]()
        self._max_attempts = 0
        self._retried: set[str] = set()  # to be handed out again, to this worker or another one
        self._was_opened = self._is_caught_up = self._has_ended = False
        self._done = asyncio.Event()

    async def work(self, subscription: Subscription[SampleRunsResponse]) -> ProcessedSamples:
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._read(subscription, group)), group.create_task(self._watch_retries())]
                await self._done.wait()
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            subscription.close()
            if self._was_opened:
                await self._samples.give_back()
        return ProcessedSamples(judged=self._counts["judged"], failed=self._counts["failed"], lost=self._counts["lost"])

    async def _read(self, subscription: Subscription[SampleRunsResponse], group: asyncio.TaskGroup) -> None:
        while (frame := await subscription.next()) is not None:
            if frame.HasField("opened"):
                self._was_opened = True
                rule = Rule.from_proto(frame.opened.rule)
                self._worker.check(rule)
                self._max_attempts = rule.max_attempts
            elif frame.HasField("samples"):
                self._is_caught_up = False
                for sample in frame.samples.samples:
                    self._retried.discard(sample.run.run_id)
                    if self._samples.take(sample):
                        group.create_task(self._work_on(sample))
            elif frame.HasField("caught_up"):
                self._is_caught_up = True
                self._look()
        self._has_ended = True
        self._look()

    def _look(self) -> None:
        """End the shift if nothing is left to do."""
        is_over = self._has_ended or (self._is_caught_up and self._worker.until_caught_up and not self._retried)
        if is_over and not self._samples:
            self._done.set()

    async def _watch_retries(self) -> None:
        """Find out whether samples that are to be tried again were done elsewhere: nothing is heard of these."""
        while self._worker.until_caught_up:
            await self._clock.sleep(_RETRY_WATCH)
            if self._retried and not self._samples:
                progress = (await self._rules.get(self._worker.rule_id)).progress
                if progress.runs_drawn <= progress.runs_judged + progress.runs_failed:
                    self._retried.clear()
                    self._look()

    async def _work_on(self, sample: Sample) -> None:
        working: Sample | None = sample
        while working is not None:
            held, told = await self._tell(await self._judge(working))
            working = self._samples.leave(told.run.id, done=told.error is None)
            self._count(told, held=held, goes_on=working is not None)
            if held and self._worker.on_judged is not None:
                await call_handler(self._worker.on_judged, told, _HANDLER_TIMEOUT)
        self._look()

    def _count(self, told: JudgedRun, *, held: bool, goes_on: bool) -> None:
        if not held:
            self._counts["lost"] += 1
            _log.debug("run %s is judged by another worker", told.run.id)
        elif told.error is None:
            self._counts["judged"] += 1
        else:
            self._counts["failed"] += 1
            if told.attempt < self._max_attempts and not goes_on:
                self._retried.add(told.run.id)

    async def _judge(self, sample: Sample) -> JudgedRun:
        run, began = Run.from_proto(sample.run), self._clock.monotonic()
        scores: list[Score] = []
        error = None
        try:
            events = self._runs.events(run.id, page_size=_LARGEST_PAGE)
            scores = await judge(events, self._worker.evaluators, run=run, timeout=self._worker.timeout)
        except Exception as failure:
            # It could not be read: evaluators' failures are scores.
            error = ErrorInfo.from_proto(_payloads.error_of(failure))
        took = timedelta(seconds=self._clock.monotonic() - began)
        return JudgedRun(run=run, attempt=sample.attempt, scores=tuple(scores), error=error, duration=took)

    async def _tell(self, judged: JudgedRun) -> tuple[bool, JudgedRun]:
        """Tell the server; return whether the sample was held still, and what was told."""
        if judged.error is None:
            scores = [score.to_proto() for score in judged.scores]
            told = SampleScores(scores=scores, labels=self._worker.labels, duration=exact_duration(judged.duration))
            try:
                return await self._samples.complete(judged.run.id, scores=told), judged
            except InvalidField as refused:
                error = ErrorInfo.from_proto(_payloads.error_of(refused))
                judged = judged.model_copy(update={"scores": (), "error": error})
        failure = None if judged.error is None else judged.error.to_proto()
        return await self._samples.complete(judged.run.id, failure=failure), judged


def _names(evaluator: Evaluator[Any, Any, Any]) -> set[str]:
    return {str(evaluator.get_default_evaluation_name()), evaluator.get_serialization_name()}
