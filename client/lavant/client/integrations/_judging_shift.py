"""A worker at work: from the opening of a stream of samples until it ends, or the evaluators are unavailable."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from lavant.client import _payloads
from lavant.client._arguments import duration, exact_duration
from lavant.client._async.concurrency import call_handler
from lavant.client._async.subscription import Subscription
from lavant.client._errors import InvalidField
from lavant.client._judged import JudgedRun
from lavant.client._models import ErrorInfo
from lavant.client._rules import EvaluatorInfo, Rule
from lavant.client.integrations._first_failure import first_failure
from lavant.client.integrations._judging_attempt import Attempt, Attempts
from lavant.client.integrations._judging_health import Gate, Outage
from lavant.client.integrations._judging_samples import HeldSamples
from lavant.v1.evaluation_service_pb2 import Sample, SampleReturn, SampleRunsResponse, SamplesCaughtUp, SampleScores

_HANDLER_TIMEOUT = 30.0
_LONGEST_WAIT = 30.0  # seconds that a worker which ends once all is done waits for a sample's next attempt

_log = logging.getLogger("lavant.client")


class Shift:
    """Reads the samples that come, and evaluates each in a task of its own."""

    def __init__(
        self,
        attempts: Attempts,
        samples: HeldSamples,
        outage: Outage,
        counts: Counter[str],
        *,
        check: Callable[[Rule], None],
        until_caught_up: bool,
        evaluators: Sequence[EvaluatorInfo],
        labels: Mapping[str, str],
        on_judged: Callable[[JudgedRun], object] | None,
    ) -> None:
        self.was_opened = False
        self.left = 0  # samples that wait for another attempt, when all others are done
        self._attempts = attempts
        self._samples = samples
        self._outage = outage
        self._counts = counts
        self._check = check
        self._until_caught_up = until_caught_up
        self._evaluators = [info.to_proto() for info in evaluators]
        self._labels = labels
        self._on_judged = on_judged
        self._gate = Gate(outage)
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work = 0
        self._has_ended = self._is_caught_up = False
        self._done = asyncio.Event()

    async def work(self, subscription: Subscription[SampleRunsResponse]) -> bool:
        """Work until all is done, if that is wanted; False if the evaluators became unavailable before."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(subscription, group))
                await self._done.wait()
                for task in (reading, *self._tasks):  # those that still wait for evaluators to answer
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            subscription.close()
        if not self._gate.is_shut:
            return True
        await self._samples.return_each()
        return False

    async def _read(self, subscription: Subscription[SampleRunsResponse], group: asyncio.TaskGroup) -> None:
        while (frame := await subscription.next()) is not None:
            if frame.HasField("opened"):
                self.was_opened = True
                rule = Rule.from_proto(frame.opened.rule)
                self._check(rule)
                self._attempts.opened(rule)
            elif frame.HasField("samples"):
                self._is_caught_up = False
                for sample in frame.samples.samples:
                    if self._samples.take(sample):
                        task = group.create_task(self._work_on(sample))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            elif frame.HasField("caught_up"):
                self._is_caught_up = _is_all_done(frame.caught_up)
                self.left = frame.caught_up.progress.samples_waiting
                self._look()
        self._has_ended = True
        self._look()

    def _look(self) -> None:
        """End the shift if nothing is left to do, or nobody can do it."""
        is_over = self._has_ended or (self._is_caught_up and self._until_caught_up)
        if (is_over and not self._samples) or (self._gate.is_shut and not self._at_work):
            self._done.set()

    async def _work_on(self, sample: Sample) -> None:
        working: Sample | None = sample
        while working is not None:
            await self._gate.enter()
            self._at_work += 1
            try:
                working = await self._evaluate(working)
            finally:
                self._at_work -= 1
        self._look()

    async def _evaluate(self, sample: Sample) -> Sample | None:
        """Make an attempt, and tell the server; return the sample as it was assigned meanwhile once more, if it was."""
        attempt = await self._attempts.make(sample)
        counts = True
        if attempt.is_down and attempt.judged.error is not None:
            counts = self._gate.failed(attempt.judged.error, attempt.retry_after)
        elif attempt.judged.error is None:
            self._gate.answered()
        else:
            self._gate.undecided()
        held, told = await self._tell(attempt, counts=counts)
        again = self._samples.leave(told.run.id, done=told.error is None)
        self._count(told, held=held, goes_on=again is not None, counts=counts)
        if held and counts and self._on_judged is not None:
            await call_handler(self._on_judged, told, _HANDLER_TIMEOUT)
        return again

    def _count(self, told: JudgedRun, *, held: bool, goes_on: bool, counts: bool) -> None:
        if not held:
            self._counts["lost"] += 1
            _log.debug("run %s is judged by another worker", told.run.id)
        elif told.error is None:
            self._counts["judged"] += 1
        elif counts and self._attempts.is_last(told.attempt):
            self._counts["failed"] += 1
        else:
            self._counts["returned"] += 1
            if not goes_on:
                self._is_caught_up = False  # the server says again when it is: the sample is delayed now

    async def _tell(self, attempt: Attempt, *, counts: bool) -> tuple[bool, JudgedRun]:
        """Tell the server; return whether the sample was held still, and what was told."""
        judged = attempt.judged
        if judged.error is None:
            scores = [score.to_proto() for score in judged.scores]
            told = SampleScores(scores=scores, labels=self._labels, duration=exact_duration(judged.duration))
            try:
                return await self._samples.complete(judged.run.id, scores=told), judged
            except InvalidField as refused:
                error = ErrorInfo.from_proto(_payloads.error_of(refused))
                judged = judged.model_copy(update={"scores": (), "error": error})
        failure = None if judged.error is None else judged.error.to_proto()
        if not counts:
            returned = SampleReturn(delay=duration(self._outage.pause_seconds), error=failure)
            return await self._samples.complete(judged.run.id, returned=returned), judged
        wait = duration(attempt.retry_after) if attempt.retry_after else None
        told_of = {"failure": failure, "retry_delay": wait, "evaluators": self._evaluators}
        return await self._samples.complete(judged.run.id, **told_of), judged


def _is_all_done(told: SamplesCaughtUp) -> bool:
    """Tell whether nothing is left that is worth waiting for."""
    return not told.HasField("next_retry_delay") or told.next_retry_delay.ToMilliseconds() / 1000 > _LONGEST_WAIT
