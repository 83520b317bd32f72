"""Errors over HTTP: the table of statuses, and the JSON of an error."""

import json
import math

from starlette.responses import Response

from lavant.server.errors import ServiceError
from lavant.v1.error_pb2 import ErrorReason

STATUSES: dict["ErrorReason.ValueType", int] = {
    ErrorReason.ERROR_REASON_INVALID_FIELD: 400,
    ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID: 400,
    ErrorReason.ERROR_REASON_UNAUTHENTICATED: 401,
    ErrorReason.ERROR_REASON_PERMISSION_DENIED: 403,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND: 404,
    ErrorReason.ERROR_REASON_RULE_NOT_FOUND: 404,
    ErrorReason.ERROR_REASON_KEY_NOT_FOUND: 404,
    ErrorReason.ERROR_REASON_CONSUMER_BUSY: 409,
    ErrorReason.ERROR_REASON_STALE_ATTEMPT: 409,
    ErrorReason.ERROR_REASON_STREAM_DISPLACED: 409,
    ErrorReason.ERROR_REASON_STORE_EPOCH_CHANGED: 410,
    ErrorReason.ERROR_REASON_QUOTA_EXCEEDED: 429,
    ErrorReason.ERROR_REASON_SLOW_CONSUMER: 503,
    ErrorReason.ERROR_REASON_UNAVAILABLE: 503,
}


def body_of(error: ServiceError) -> dict[str, object]:
    """Return the JSON of an error: the reason for programs, the message for people, the fields that break a rule."""
    body: dict[str, object] = {"reason": error.reason_name, "message": error.message}
    if error.violations:
        body["fields"] = [{"path": one.path, "description": one.description} for one in error.violations]
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"error": body}


def retry_headers(error: ServiceError) -> dict[str, str]:
    """Return the headers that say when to retry: in whole seconds, rounded up."""
    return {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


def to_response(error: ServiceError) -> Response:
    """Return the response to an error."""
    headers = retry_headers(error)
    if error.reason == ErrorReason.ERROR_REASON_UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"  # not Basic, for which a browser would ask
    return refusal(STATUSES.get(error.reason, 500), body_of(error), headers)


def refusal(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    """Return a response with a JSON body."""
    return Response(json.dumps(body), status, headers, media_type="application/json")


def refused(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return the response to a request that HTTP itself refuses, before it becomes a call."""
    return refusal(status, {"error": {"reason": reason, "message": message}}, headers)
