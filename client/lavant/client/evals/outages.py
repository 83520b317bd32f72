"""Classification of an evaluator's failures: outages of the model, service or network that it uses, or others.

| outage | recognised by |
|---|---|
| reported by the evaluator | `EvaluatorUnavailable` |
| time limits and connections | `TimeoutError`, `ConnectionError`, `socket.gaierror`, and the classes named below |
| an HTTP status | 401, 402, 403, 408, 425, 429 or 5xx in `status_code`, `status`, `code`, `http_status`, in the |
|  | `response`, or first in the message of an exception of a general class |
| a gRPC status | UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAUTHENTICATED |
| an exception's class | by its name, as httpx, openai, anthropic, aiohttp, botocore and google have them |
| a missing key | `KeyError` of an environment variable, and messages that an API key is missing or not valid |
| a cause that is an outage | `__cause__`, else `__context__`; for a group, all its exceptions |

An AssertionError is never an outage, whatever its message.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

_DEPTH = 10  # causes of causes
_LONGEST_WAIT = 600.0  # seconds
_STATUSES = frozenset({401, 402, 403, 408, 425, 429, *range(500, 600)})
_GRPC = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"})
_CLASSES = frozenset(
    {
        # httpx and httpcore, requests, aiohttp, urllib3
        *("TransportError", "TimeoutException", "Timeout", "RequestException", "ClientConnectionError"),
        *("ServerDisconnectedError", "NewConnectionError", "MaxRetryError", "ProtocolError"),
        # openai, anthropic, mistral, groq, cohere
        *("APIConnectionError", "APITimeoutError", "RateLimitError", "InternalServerError", "OverloadedError"),
        *("ServiceUnavailableError", "AuthenticationError", "PermissionDeniedError", "TooManyRequestsError"),
        # google, botocore
        *("ServerError", "ResourceExhausted", "ServiceUnavailable", "DeadlineExceeded", "TooManyRequests"),
        *("Unauthenticated", "EndpointConnectionError", "NoCredentialsError", "ThrottlingException"),
    }
)
# Classes so general that only the message can be classified.
_GENERAL = frozenset(
    {"Exception", "RuntimeError", "OSError", "IOError", "UserError", "OpenAIError", "APIError", "Error"}
)
_STATUS_FIRST = re.compile(r"\W*(?:(?:http|api|error|status|code|server|client)\W*){0,4}(\d{3})\b", re.IGNORECASE)
_OUTAGE = re.compile(
    r"rate.?limit|too many requests|overloaded|unavailable|bad gateway|gateway time-?out|timed? ?out|"
    r"connection (?:error|refused|reset|aborted|closed|failed)|insufficient.?quota|quota exceeded|"
    r"server disconnected|name resolution|no route to host|network is unreachable",
    re.IGNORECASE,
)
_NO_KEY = re.compile(
    r"(?:missing|no|set|provide|pass|requires?|invalid|incorrect|expired)\b.{0,60}api[ _-]?key|"
    r"api[ _-]?key\b.{0,60}\b(?:missing|not|must|required?|invalid|incorrect|expired)",
    re.IGNORECASE | re.DOTALL,
)
_KEY_VARIABLE = re.compile(r"[A-Z0-9_]*(?:API_?KEY|ACCESS_KEY|TOKEN|SECRET|CREDENTIALS)[A-Z0-9_]*")


class EvaluatorUnavailable(Exception):
    """Raised by an evaluator that cannot score now: the sample is returned, to be evaluated later.

    The next attempt is made after `retry_after` seconds at the earliest, at most 10 min. Connection errors, time
    limits, statuses such as 429 and 503, and missing API keys are recognised without it.

    Example:
        from dataclasses import dataclass

        from pydantic_evals.evaluators import Evaluator, EvaluatorContext


        @dataclass
        class Grounded(Evaluator):
            def evaluate(self, ctx: EvaluatorContext) -> bool:
                raise EvaluatorUnavailable("the index is being rebuilt", retry_after=60)


        [score] = await evaluate(await client.runs.stream(run_id).collect(), [Grounded()])
        assert score.error.retryable
    """

    def __init__(self, message: str = "the evaluator cannot score now", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def is_outage(error: BaseException) -> bool:
    """Return whether a failure is an outage, by the table above. Never raises."""
    return any(_is_outage(one) for one in _with_causes(error)) or _all_of_group(error)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds to wait that a failure states: its `retry_after`, or the response's header."""
    for one in _with_causes(error):
        stated = _attribute(one, "retry_after")
        if stated is None:
            headers = _attribute(_attribute(one, "response"), "headers")
            stated = headers.get("retry-after") if isinstance(headers, Mapping) else None
        seconds = _number(stated)
        if seconds is not None:
            return min(max(seconds, 0.0), _LONGEST_WAIT)
    return None


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception of a group, or of a group in it."""
    failure = failures.exceptions[0]
    return first_failure(failure) if isinstance(failure, BaseExceptionGroup) else failure


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(seen) < _DEPTH and not any(one is known for known in seen):
        yield one
        seen.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _all_of_group(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup) and all(map(is_outage, error.exceptions))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, EvaluatorUnavailable | TimeoutError | ConnectionError | socket.gaierror):
        return True
    if isinstance(error, AssertionError):
        return False
    if any(kind.__name__ in _CLASSES for kind in type(error).__mro__):
        return True
    return _has_status(error) or _has_message(error)


def _has_status(error: BaseException) -> bool:
    response = _attribute(error, "response")
    parts: list[Any] = [error, response]
    if isinstance(response, Mapping):  # botocore's
        parts = [error]
        meta = response.get("ResponseMetadata")
        if isinstance(meta, Mapping) and meta.get("HTTPStatusCode") in _STATUSES:
            return True
    for part in parts:
        for name in ("status_code", "status", "code", "http_status"):
            status = _attribute(part, name)
            if name == "code" and callable(status):
                status = _called(status)
            if _number(status) in _STATUSES or _attribute(status, "name") in _GRPC:
                return True
    return False


def _has_message(error: BaseException) -> bool:
    if isinstance(error, KeyError):
        return len(error.args) == 1 and bool(_KEY_VARIABLE.fullmatch(str(error.args[0])))
    text = _text(error)
    if _NO_KEY.search(text):
        return True
    if type(error).__name__ not in _GENERAL:
        return False
    status = _STATUS_FIRST.match(text)
    return bool(_OUTAGE.search(text)) or (status is not None and int(status[1]) in _STATUSES)


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property may raise anything
        return None


def _called(function: Any) -> Any:
    try:
        return function()
    except Exception:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1_000]
    except Exception:
        return ""
