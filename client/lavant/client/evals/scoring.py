"""Evaluation of a stored run: scores of several evaluators, each isolated from the others."""

import asyncio
import copy
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import replace
from inspect import isawaitable, iscoroutinefunction
from itertools import chain
from math import isfinite
from typing import Any, TypeAlias, TypeVar

from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext

from lavant.client._publishing import payloads as _payloads
from lavant.client._wire import json_text as _json
from lavant.client._wire.arguments import check_optional_seconds
from lavant.client.evals.context import Recorded, context_of
from lavant.client.evals.outages import is_outage, retry_after
from lavant.client.models import ErrorInfo, Run
from lavant.client.rules import EvaluatorInfo
from lavant.client.scores import Score
from lavant.contract.json_values import bounded_text
from lavant.contract.text import to_text

_Evaluator: TypeAlias = Evaluator[Any, Any, Any]
_Context: TypeAlias = EvaluatorContext[Any, Any, Any]
RETRY_AFTER = "retry_after"  # in an error's details: seconds
_LONGEST_NAME = 128  # the names of a rule's scores are no longer
_LONGEST_TEXT = 8_192
_LARGEST_CONFIG = 16 << 10
_HIDDEN = "***"
_SECRET_ENDS = (
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "privatekey",
    "secretkey",
    "signingkey",
    "token",
)
_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# With a digit in what follows: "Basic understanding" is no secret.
_IN_HEADER = re.compile(r"\b(Bearer|Basic)\s+(?=\S*\d)\S{16,}")
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


async def evaluate(
    recorded: Recorded,
    evaluators: Sequence[_Evaluator],
    *,
    run: Run | None = None,
    expected_output: object = None,
    timeout: float | None = 60.0,
    max_concurrency: int = 5,
) -> list[Score]:
    """Evaluate a stored run with evaluators of pydantic-evals; return their scores in the evaluators' order.

    `recorded`, `run` and `expected_output` are as in `context_of`. Each result of an evaluator is a score. An evaluator
    that raises, takes longer than `timeout` seconds, or returns anything but bools, finite numbers and text has a score
    with an `error`, and affects no other: each gets a copy of the context, except of the span tree and the expected
    output. The error is `retryable` if the evaluator, or what it uses, is unavailable: connection errors, time limits,
    statuses such as 429 and 503, missing API keys, and `EvaluatorUnavailable`. Scores of the same name are numbered, as
    in `Contains_2`.

    At most `max_concurrency` evaluators run at once. One with a synchronous `evaluate` runs in a thread of its own:
    after a time limit or cancellation, it continues there until it returns. Cancelling the call cancels all evaluators.

    Raises ValueError or TypeError for invalid arguments, and what `context_of` raises.

    Example:
        from pydantic_evals.evaluators import MaxDuration, ToolCorrectness

        recording = await client.runs.stream(run_id).collect()
        scores = await evaluate(recording, [ToolCorrectness(["search_web"]), MaxDuration(300)])
        assert [(score.name, score.value) for score in scores] == [("ToolCorrectness", True), ("MaxDuration", True)]
    """
    check_optional_seconds("timeout", timeout)
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be 1 or more, not {max_concurrency}")
    context = await context_of(recorded, run=run, expected_output=expected_output)
    return list(with_unique_names(await run_evaluators(context, evaluators, timeout, max_concurrency)))


async def run_evaluators(
    context: _Context, evaluators: Sequence[_Evaluator], timeout: float | None, max_concurrency: int = 5
) -> list[list[Score]]:
    """Run evaluators; return the scores of each, in their order, with names that may repeat."""
    free = asyncio.Semaphore(max_concurrency)

    async def work(evaluator: _Evaluator) -> list[Score]:
        async with free:
            return await _run(evaluator, context, timeout)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(evaluator)) for evaluator in evaluators]
    return [task.result() for task in tasks]


async def _run(evaluator: _Evaluator, context: _Context, timeout: float | None) -> list[Score]:
    name, info = type(evaluator).__name__, EvaluatorInfo(name=type(evaluator).__name__)
    try:
        name, info = str(evaluator.get_default_evaluation_name()), describe(evaluator)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                output = await _call(evaluator, _copy(context))
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"took longer than {timeout:g} s") from None
        results = output if isinstance(output, Mapping) else {name: output}
        direction = direction_of(evaluator)
        return [_score(str(each), result, info, direction) for each, result in results.items()]
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        # Also a cancellation that the evaluator raised; when `evaluate` is cancelled, its task group raises.
        return [_failure(name, info, error)]


async def _call(evaluator: _Evaluator, context: _Context) -> object:
    overrides = type(evaluator).evaluate_async is not Evaluator.evaluate_async
    if overrides or iscoroutinefunction(evaluator.evaluate):
        return await evaluator.evaluate_async(context)
    output: object = await _in_thread(evaluator.evaluate, context)
    return await output if isawaitable(output) else output


def _copy(context: _Context) -> _Context:
    """Return a copy of a context, so that an evaluator that changes it affects no other."""
    fields = ("inputs", "output", "metadata", "attributes", "metrics")
    return replace(context, **{field: copy.deepcopy(getattr(context, field)) for field in fields})


def _score(name: str, result: object, info: EvaluatorInfo, higher_is_better: bool | None) -> Score:
    value, reason = (result.value, result.reason) if isinstance(result, EvaluationReason) else (result, None)
    try:
        checked, explanation = _checked(value), _text(reason or "")
    except (ArithmeticError, TypeError, ValueError) as error:
        return _failure(name, info, error)
    return Score(
        name=_text(name, _LONGEST_NAME),
        value=checked,
        explanation=explanation,
        evaluator=info.name,
        version=info.version,
        config=info.config,
        higher_is_better=higher_is_better,
    )


def _checked(value: object) -> float | bool | str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or (isinstance(value, int | float) and isfinite(value)):
        return value
    raise TypeError(f"an evaluator must return a bool, a finite number or text, not {value!r}"[:_LONGEST_TEXT])


def _failure(name: str, info: EvaluatorInfo, error: BaseException) -> Score:
    return Score(
        name=_text(name, _LONGEST_NAME),
        value=None,
        evaluator=info.name,
        version=info.version,
        config=info.config,
        error=_error_of(error),
    )


def _error_of(error: BaseException) -> ErrorInfo:
    """Describe what an evaluator raised; an outage is retryable."""
    info = ErrorInfo.from_proto(_payloads.error_of(error))
    if not is_outage(error):
        return info
    seconds = retry_after(error)
    details = info.details if seconds is None else {RETRY_AFTER: seconds}
    return info.model_copy(update={"retryable": True, "details": details})


def _text(text: str, longest: int = _LONGEST_TEXT) -> str:
    return to_text(text)[:longest]


def with_unique_names(scores: Iterable[Iterable[Score]]) -> Iterator[Score]:
    """Yield the scores of several evaluators; repeated names are numbered as pydantic-evals does."""
    seen: set[str] = set()
    for score in chain.from_iterable(scores):
        name, number = score.name, 1
        while name in seen:
            number += 1
            name = f"{score.name}_{number}"
        seen.add(name)
        yield score if name == score.name else score.model_copy(update={"name": name})


def describe(evaluator: Evaluator[Any, Any, Any]) -> EvaluatorInfo:
    """Return an evaluator's class name, version and settings.

    The version is that of `get_evaluator_version()`, else an attribute `evaluator_version`. The settings are the
    arguments that differ from the defaults, as JSON, or its beginning; what JSON cannot express is only its class.
    Values under names of secrets, such as `api_key`, and credentials in URLs are hidden.
    """
    version = evaluator.get_evaluator_version() or getattr(evaluator, "evaluator_version", None)
    return EvaluatorInfo(
        name=evaluator.get_serialization_name(),
        version=str(version or ""),
        config=_config_of(evaluator.build_serialization_arguments()),
    )


def direction_of(evaluator: _Evaluator) -> bool | None:
    """Return an evaluator's attribute `higher_is_better`, or None if that is not a bool."""
    direction = getattr(evaluator, "higher_is_better", None)
    return direction if isinstance(direction, bool) else None


def _config_of(arguments: dict[str, Any]) -> Any:
    if not arguments:
        return None
    config = _without_secrets(_json.decode(_json.encode(arguments)))
    return _json.decode(bounded_text(_json.encode(config), _LARGEST_CONFIG))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _HIDDEN if _is_secret(key) else _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if isinstance(value, str):
        return _IN_HEADER.sub(rf"\1 {_HIDDEN}", _IN_URL.sub(_HIDDEN, value))
    return value


def _is_secret(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "secret" in plain or "password" in plain or plain.endswith(_SECRET_ENDS)


async def _in_thread(function: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
    """Call a function that may block in a thread of its own.

    If the call is cancelled, the thread continues until the function returns. Unlike one of the event loop's pool, it
    delays no other call, and does not keep the process from ending. A StopIteration is raised as a RuntimeError.
    """
    done: Future[_Result] = Future()
    done.set_running_or_notify_cancel()  # so that setting its result is allowed after a cancellation
    context = copy_context()

    def work() -> None:
        try:
            done.set_result(context.run(function, argument))
        except StopIteration:
            # asyncio's futures cannot hold one: awaiting them would never end.
            done.set_exception(RuntimeError("StopIteration was raised"))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True, name="lavant-evaluator").start()
    return await asyncio.wrap_future(done)
