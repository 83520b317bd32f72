"""Errors as gRPC statuses: the one table of codes, and the standard details of google.rpc."""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from lavant.contract.status import ERROR_DOMAIN, STATUS_DETAILS_KEY
from lavant.server.errors import ServiceError
from lavant.v1.error_pb2 import ErrorReason

CODES: dict["ErrorReason.ValueType", StatusCode] = {
    ErrorReason.ERROR_REASON_INVALID_FIELD: StatusCode.INVALID_ARGUMENT,
    ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID: StatusCode.INVALID_ARGUMENT,
    ErrorReason.ERROR_REASON_STORE_EPOCH_CHANGED: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorReason.ERROR_REASON_RUN_EXISTS: StatusCode.ALREADY_EXISTS,
    ErrorReason.ERROR_REASON_RUN_SEALED: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_RUN_NOT_ENDED: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_CONSUMER_BUSY: StatusCode.UNAVAILABLE,
    ErrorReason.ERROR_REASON_STREAM_DISPLACED: StatusCode.ABORTED,
    ErrorReason.ERROR_REASON_STALE_ATTEMPT: StatusCode.ABORTED,
    ErrorReason.ERROR_REASON_SLOW_CONSUMER: StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.ERROR_REASON_QUOTA_EXCEEDED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.ERROR_REASON_PRODUCER_GAP: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_PRODUCER_FENCED: StatusCode.ABORTED,
    ErrorReason.ERROR_REASON_PRODUCER_CONFLICT: StatusCode.ALREADY_EXISTS,
    ErrorReason.ERROR_REASON_UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorReason.ERROR_REASON_PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    ErrorReason.ERROR_REASON_UNAVAILABLE: StatusCode.UNAVAILABLE,
    ErrorReason.ERROR_REASON_DATA_LOSS: StatusCode.DATA_LOSS,
    ErrorReason.ERROR_REASON_RULE_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorReason.ERROR_REASON_RULE_EXISTS: StatusCode.ALREADY_EXISTS,
    ErrorReason.ERROR_REASON_RULE_CHANGED: StatusCode.ABORTED,
    ErrorReason.ERROR_REASON_BACKFILL_UNDER_WAY: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_SAMPLE_LOST: StatusCode.FAILED_PRECONDITION,
    ErrorReason.ERROR_REASON_KEY_NOT_FOUND: StatusCode.NOT_FOUND,
}
_RESOURCES = {
    ErrorReason.ERROR_REASON_RUN_NOT_FOUND: "lavant.v1.Run",
    ErrorReason.ERROR_REASON_RULE_NOT_FOUND: "lavant.v1.Rule",
    ErrorReason.ERROR_REASON_KEY_NOT_FOUND: "lavant.v1.Key",
}


def to_status(error: ServiceError) -> status_pb2.Status:
    """Return the status of an error, with ErrorInfo and the further details that the contract promises."""
    code, _ = CODES[error.reason].value
    status = status_pb2.Status(code=code, message=error.message)
    for detail in _details(error):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def to_trailers(error: ServiceError) -> tuple[tuple[str, bytes]]:
    """Return the status as trailing metadata, where gRPC's rich error model expects it."""
    return ((STATUS_DETAILS_KEY, to_status(error).SerializeToString()),)


def _details(error: ServiceError) -> list[Message]:
    reason = error.reason_name
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=error.metadata)]
    if error.detail is not None:
        details.append(error.detail)
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.path, description=violation.description)
            for violation in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.reason in _RESOURCES:
        kind = _RESOURCES[error.reason]
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=error.resource))
    if error.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED:
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.resource, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    return details
