"""Attempts to evaluate samples; scores of earlier attempts are kept."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from pydantic_evals.evaluators import Evaluator

from lavant.client._async.api.runs import AsyncRuns
from lavant.client._async.concurrency import Clock
from lavant.client._publishing import payloads as _payloads
from lavant.client.evals.context import context_of
from lavant.client.evals.scoring import RETRY_AFTER, run_evaluators, with_unique_names
from lavant.client.evaluations import EvaluatedRun
from lavant.client.models import ErrorInfo, Run
from lavant.client.rules import Rule
from lavant.client.scores import Score
from lavant.v1.evaluation_service_pb2 import Sample

_LARGEST_PAGE = 1_000
_KEPT = 1_000  # samples


class Attempt(NamedTuple):
    """Result of an attempt: scores, or an error.

    `is_down`: all evaluators are unavailable. `retry_after` is what the evaluators ask for, in seconds.
    """

    evaluated: EvaluatedRun
    is_down: bool = False
    retry_after: float = 0.0


class Attempts:
    """Evaluator of samples that keeps scores while other evaluators are unavailable, for the next attempt."""

    def __init__(
        self, evaluators: Sequence[Evaluator[Any, Any, Any]], timeout: float | None, runs: AsyncRuns, clock: Clock
    ) -> None:
        self._evaluators = evaluators
        self._timeout = timeout
        self._runs = runs
        self._clock = clock
        self._score_names: Mapping[str, tuple[str, ...]] = {}
        self._max_attempts = 0
        self._kept: OrderedDict[str, list[list[Score] | None]] = OrderedDict()

    def set_rule(self, rule: Rule) -> None:
        """Set the rule, which has the names of scores and the maximum number of attempts."""
        self._score_names = {one.name: one.score_names for one in rule.evaluators if one.score_names}
        self._max_attempts = rule.max_attempts

    def is_last(self, attempt: int) -> bool:
        """Return whether a sample is recorded as failed after this attempt."""
        return attempt >= self._max_attempts

    async def make(self, sample: Sample) -> Attempt:
        """Evaluate a sample; failures become part of the result."""
        run, began = Run.from_proto(sample.run), self._clock.monotonic()
        try:
            found = await self._run_evaluators(run)
        except Exception as failure:
            # The run could not be read: failures of evaluators are scores.
            return Attempt(self._failed(run, sample, began, ErrorInfo.from_proto(_payloads.error_of(failure))))
        outages = [_outage_of(scores) for scores in found]
        reasons = [outage for outage in outages if outage is not None]
        is_down = len(reasons) == len(found)
        if not reasons or (self.is_last(sample.attempt) and not is_down):
            took = timedelta(seconds=self._clock.monotonic() - began)
            scores = tuple(with_unique_names(map(self._renamed, found)))
            return Attempt(EvaluatedRun(run=run, attempt=sample.attempt, scores=scores, duration=took))
        if not is_down:
            self._keep(
                run.id, [scores if outage is None else None for scores, outage in zip(found, outages, strict=True)]
            )
        error = _joined(reasons, len(found))
        return Attempt(self._failed(run, sample, began, error), is_down, max(map(_retry_after, reasons)))

    async def _run_evaluators(self, run: Run) -> list[list[Score]]:
        """Run the evaluators without kept scores; return the scores of all."""
        found = self._kept.pop(run.id, None) or [None] * len(self._evaluators)
        events = self._runs.events(run.id, page_size=_LARGEST_PAGE)
        context = await context_of(events, run=run)
        missing = [one for one, scores in zip(self._evaluators, found, strict=True) if scores is None]
        new = iter(await run_evaluators(context, missing, self._timeout))
        return [next(new) if scores is None else scores for scores in found]

    def _keep(self, run_id: str, found: list[list[Score] | None]) -> None:
        self._kept[run_id] = found
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _renamed(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Yield an evaluator's scores; its failure becomes one of each score that the rule lists for it."""
        for score in scores:
            names = self._score_names.get(score.name, ()) if score.error else ()
            yield from [score.model_copy(update={"name": name}) for name in names] or [score]

    def _failed(self, run: Run, sample: Sample, began: float, error: ErrorInfo) -> EvaluatedRun:
        took = timedelta(seconds=self._clock.monotonic() - began)
        return EvaluatedRun(run=run, attempt=sample.attempt, error=error, duration=took)


def _outage_of(scores: Iterable[Score]) -> Score | None:
    return next((score for score in scores if score.error is not None and score.error.retryable), None)


def _joined(reasons: Sequence[Score], evaluators: int) -> ErrorInfo:
    """Describe several outages by the first of them."""
    first = reasons[0]
    assert first.error is not None  # noqa: S101 - reasons are scores that failed
    how_many = "" if evaluators == 1 else f"{len(reasons)} of {evaluators} evaluators are unavailable: "
    message = f"{how_many}{first.name}: {first.error.message}"
    return ErrorInfo(message=message, type=first.error.type, retryable=True)


def _retry_after(reason: Score) -> float:
    details = reason.error.details if reason.error else None
    return float(details[RETRY_AFTER]) if isinstance(details, dict) and RETRY_AFTER in details else 0.0
