"""Errors as HTTP statuses: the one table of statuses, and their JSON."""

import json
import math

from starlette.responses import Response

from lavant.server.errors import LavantError
from lavant.v1.error_pb2 import ErrorReason

_PREFIX = "ERROR_REASON_"

STATUSES: dict["ErrorReason.ValueType", int] = {
    ErrorReason.ERROR_REASON_INVALID_FIELD: 400,
    ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID: 400,
    ErrorReason.ERROR_REASON_UNAUTHENTICATED: 401,
    ErrorReason.ERROR_REASON_PERMISSION_DENIED: 403,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND: 404,
    ErrorReason.ERROR_REASON_RULE_NOT_FOUND: 404,
    ErrorReason.ERROR_REASON_CONSUMER_BUSY: 409,
    ErrorReason.ERROR_REASON_STALE_ATTEMPT: 409,
    ErrorReason.ERROR_REASON_STREAM_DISPLACED: 409,
    ErrorReason.ERROR_REASON_STORE_EPOCH_CHANGED: 410,
    ErrorReason.ERROR_REASON_QUOTA_EXCEEDED: 429,
    ErrorReason.ERROR_REASON_SLOW_CONSUMER: 503,
    ErrorReason.ERROR_REASON_UNAVAILABLE: 503,
}


def name_of(error: LavantError) -> str:
    """The reason, without its prefix."""
    return ErrorReason.Name(error.reason).removeprefix(_PREFIX)


def body_of(error: LavantError) -> dict[str, object]:
    """What a caller is told: the reason for programs, the message for people, the fields that break a rule."""
    told: dict[str, object] = {"reason": name_of(error), "message": error.message}
    if error.violations:
        told["fields"] = [{"path": one.path, "description": one.description} for one in error.violations]
    if error.retry_after is not None:
        told["retry_after"] = error.retry_after
    return {"error": told}


def to_response(error: LavantError) -> Response:
    """The same as a response; Retry-After is in whole seconds, rounded up."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return refusal(STATUSES.get(error.reason, 500), body_of(error), headers)


def refusal(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    """A response that carries no more than an error."""
    return Response(json.dumps(body), status, headers, media_type="application/json")


def refused(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """What HTTP itself refuses, before it is a call."""
    return refusal(status, {"error": {"reason": reason, "message": message}}, headers)
