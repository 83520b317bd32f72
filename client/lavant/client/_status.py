"""From a call's status to an exception, in one table."""

from collections.abc import Iterable
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lavant.client import _errors as errors
from lavant.client._models import FieldViolation, RunResult
from lavant.client._reached import explain
from lavant.client._states import RunState

DOMAIN = "lavant"
DETAILS_KEY = "grpc-status-details-bin"

_BY_REASON: dict[str, type[errors.LavantError]] = {
    kind.default_reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LavantError) and kind.default_reason
}
_BY_CODE: dict[grpc.StatusCode, type[errors.LavantError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidField,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.QuotaExceeded,
    grpc.StatusCode.DATA_LOSS: errors.DataLoss,
}
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_OUTCOMES: dict[RunState, type[errors.RunNotSucceeded]] = {
    RunState.FAILED: errors.RunFailed,
    RunState.CANCELLED: errors.RunCancelled,
    RunState.TIMED_OUT: errors.RunTimedOut,
    RunState.ABANDONED: errors.RunAbandoned,
}
# How a cut connection looks when no server spoke: a proxy that lost its upstream gives INTERNAL with
# RST_STREAM, and a write that the call's end overtook an error from gRPC's core.
_CUT_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
_CUT_TEXTS = ("RST_STREAM", "Stream removed", "GOAWAY", "Internal error from Core")


class _Call(Protocol):
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: grpc.RpcError) -> errors.LavantError:
    """Build the exception that a failed call stands for."""
    call = cast("_Call", error)
    status = Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = _parse(value) or status
    return from_status(status)


def from_status(status: Status) -> errors.LavantError:
    """Build the exception that a google.rpc.Status stands for: by its reason, else by its code."""
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in status.details:
        for message in (info, retry, bad):
            detail.Unpack(message)
    reason = info.reason if info.domain == DOMAIN else None
    kind = _BY_REASON.get(reason or "") or _BY_CODE.get(code, errors.LavantError)
    text = status.message or code.name
    error = kind(
        explain(code, text) if info.domain != DOMAIN else text,
        code=code,
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        metadata=info.metadata,
        violations=tuple(FieldViolation(path=v.field, description=v.description) for v in bad.field_violations),
    )
    error.reason = reason
    return error


def is_cut(error: errors.LavantError) -> bool:
    """Tell whether the connection failed rather than the call: trying again is right.

    A server that speaks gives a reason; of those, only UNAVAILABLE and SLOW_CONSUMER ask for it.
    """
    if error.reason is not None:
        return isinstance(error, errors.Unavailable | errors.SlowConsumer)
    return error.code in _CUT_CODES or any(text in error.message for text in _CUT_TEXTS)


def raise_unless_succeeded(result: RunResult) -> None:
    """Raise the outcome of a run that ended other than well."""
    if result.state is RunState.SUCCEEDED:
        return
    raise _OUTCOMES.get(result.state, errors.RunFailed)(result)


def _parse(value: bytes) -> Status | None:
    try:
        return Status.FromString(value)
    except DecodeError:
        return None
