"""Judging a stored run: many evaluators, each on its own."""

import asyncio
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import isawaitable, iscoroutinefunction
from itertools import chain
from math import isfinite
from typing import Any, TypeAlias

from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext

from lavant.client import _payloads
from lavant.client._arguments import check_optional_seconds
from lavant.client._models import ErrorInfo, Run
from lavant.client._rows import Score
from lavant.client.integrations._judging_context import Recorded, context_of
from lavant.client.integrations._judging_described import Described, describe
from lavant.client.integrations._judging_outages import is_outage, retry_after
from lavant.client.integrations._judging_thread import in_thread
from lavant.contract.text import to_text

_Evaluator: TypeAlias = Evaluator[Any, Any, Any]
_Context: TypeAlias = EvaluatorContext[Any, Any, Any]
RETRY_AFTER = "retry_after"  # in an error's details: seconds
_LONGEST_NAME = 128  # the names of a rule's scores are no longer
_LONGEST_TEXT = 8_192


async def judge(
    recorded: Recorded,
    evaluators: Sequence[_Evaluator],
    *,
    run: Run | None = None,
    expected_output: object = None,
    timeout: float | None = 60.0,
    max_concurrency: int = 5,
) -> list[Score]:
    """Let evaluators of pydantic-evals judge a run that is stored; return their scores in the evaluators' order.

    `recorded`, `run` and `expected_output` are as in `context_of`. An evaluator gives as many scores as it has
    results. One that raises, that takes longer than `timeout` seconds, or whose answer is no bool, finite number or
    text, gives a score with an `error`, and touches no other's: each has a context of its own, apart from the span
    tree and the expected output. The error is `retryable` if the evaluator, or what it asks, cannot be reached now:
    connection errors, time limits, statuses such as 429 and 503, missing API keys, and `EvaluatorUnavailable`. A score
    whose name was given before has a number behind it, as in `Contains_2`.

    At most `max_concurrency` evaluators are at work at once. One with a plain `evaluate` works in a thread of its own:
    timed out or cancelled, it goes on there until it returns. Cancelling the call cancels all evaluators.

    Raises ValueError or TypeError for arguments that make no sense, and what `context_of` raises.

    Example:
        from pydantic_evals.evaluators import MaxDuration, ToolCorrectness

        recording = await client.runs.stream(run_id).collect()
        scores = await judge(recording, [ToolCorrectness(["search_web"]), MaxDuration(300)])
        assert [(score.name, score.value) for score in scores] == [("ToolCorrectness", True), ("MaxDuration", True)]
    """
    check_optional_seconds("timeout", timeout)
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be 1 or more, not {max_concurrency}")
    context = await context_of(recorded, run=run, expected_output=expected_output)
    return named_apart(await ask_all(context, evaluators, timeout, max_concurrency))


async def ask_all(
    context: _Context, evaluators: Sequence[_Evaluator], timeout: float | None, max_concurrency: int = 5
) -> list[list[Score]]:
    """Ask evaluators about a run; return the scores of each, in their order, with names as they gave them."""
    free = asyncio.Semaphore(max_concurrency)

    async def work(evaluator: _Evaluator) -> list[Score]:
        async with free:
            return await _ask(evaluator, context, timeout)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(evaluator)) for evaluator in evaluators]
    return [task.result() for task in tasks]


async def _ask(evaluator: _Evaluator, context: _Context, timeout: float | None) -> list[Score]:
    name, who = type(evaluator).__name__, Described(name=type(evaluator).__name__)
    try:
        name, who = str(evaluator.get_default_evaluation_name()), describe(evaluator)
        clock = asyncio.timeout(timeout)
        try:
            async with clock:
                answer = await _evaluate(evaluator, _own(context))
        except TimeoutError:
            if not clock.expired():
                raise
            raise TimeoutError(f"took longer than {timeout:g} s") from None
        named = answer if isinstance(answer, Mapping) else {name: answer}
        return [_score(str(each), said, who) for each, said in named.items()]
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        # Also a cancellation of the evaluator's own: when `judge` is cancelled, its task group raises by itself.
        return [_failure(name, who, error)]


async def _evaluate(evaluator: _Evaluator, context: _Context) -> object:
    is_own = type(evaluator).evaluate_async is not Evaluator.evaluate_async
    if is_own or iscoroutinefunction(evaluator.evaluate):
        return await evaluator.evaluate_async(context)
    answer: object = await in_thread(evaluator.evaluate, context)
    return await answer if isawaitable(answer) else answer


def _own(context: _Context) -> _Context:
    """Return a copy of what is the run's: what an evaluator does to it is seen by no other."""
    fields = ("inputs", "output", "metadata", "attributes", "metrics")
    return replace(context, **{field: copy.deepcopy(getattr(context, field)) for field in fields})


def _score(name: str, said: object, who: Described) -> Score:
    value, reason = (said.value, said.reason) if isinstance(said, EvaluationReason) else (said, None)
    try:
        checked, explanation = _checked(value), _text(reason or "")
    except (ArithmeticError, TypeError, ValueError) as error:
        return _failure(name, who, error)
    return Score(
        name=_text(name, _LONGEST_NAME),
        value=checked,
        explanation=explanation,
        evaluator=who.name,
        version=who.version,
        config=who.config,
    )


def _checked(value: object) -> float | bool | str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or (isinstance(value, int | float) and isfinite(value)):
        return value
    raise TypeError(f"an evaluator must answer with a bool, a finite number or text, not {value!r}"[:_LONGEST_TEXT])


def _failure(name: str, who: Described, error: BaseException) -> Score:
    return Score(
        name=_text(name, _LONGEST_NAME),
        value=None,
        evaluator=who.name,
        version=who.version,
        config=who.config,
        error=_described(error),
    )


def _described(error: BaseException) -> ErrorInfo:
    """Describe what an evaluator raised; an outage may be over if it is asked again."""
    described = ErrorInfo.from_proto(_payloads.error_of(error))
    if not is_outage(error):
        return described
    seconds = retry_after(error)
    details = described.details if seconds is None else {RETRY_AFTER: seconds}
    return described.model_copy(update={"retryable": True, "details": details})


def _text(text: str, longest: int = _LONGEST_TEXT) -> str:
    return to_text(text)[:longest]


def named_apart(scores: Iterable[Iterable[Score]]) -> list[Score]:
    """Return the scores of several evaluators, those of one name numbered as pydantic-evals does."""
    return list(_numbered(chain.from_iterable(scores)))


def _numbered(scores: Iterable[Score]) -> Iterator[Score]:
    seen: set[str] = set()
    for score in scores:
        name, number = score.name, 1
        while name in seen:
            number += 1
            name = f"{score.name}_{number}"
        seen.add(name)
        yield score if name == score.name else score.model_copy(update={"name": name})
