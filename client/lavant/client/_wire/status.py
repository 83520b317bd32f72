"""Failed calls: their exceptions and messages, and when to retry."""

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lavant.client import errors
from lavant.client.models import FieldViolation, RunResult
from lavant.client.states import RunState
from lavant.contract.status import ERROR_DOMAIN, STATUS_DETAILS_KEY
from lavant.v1 import error_pb2

# How gRPC's core says what it could not connect to: "ipv4:127.0.0.1:7447: Failed to connect to ...".
_ADDRESS = r"(?P<address>\[[^\]]*\]:\d+|[^\s:]+:\d+|/[^\s:]+)"
_CONNECTING = re.compile(rf"(?:ipv[46]:|unix:){_ADDRESS}: (?P<cause>.*)", re.DOTALL)
_RESOLVING = re.compile(r"errors? resolving (?P<name>[^\s\[]+?):? ?\[", re.DOTALL)
_OTHER_PROTOCOL = ("Failed parsing HTTP/2", "http1.x server", "Expected SETTINGS", "Trying to connect an http1")
_CLOSED = ("Socket closed", "Connection reset")
_NO_TLS = ("tls", "Tls", "SSL", "Ssl", "handshake", "security handshaker", "verification check")
_TLS_CAUSES = {
    "WRONG_VERSION_NUMBER": "it does not use TLS: connect without `tls`, or turn TLS on there",
    "certificate has expired": "its certificate has expired: replace the certificate",
    "Hostname Verification": "its certificate is for other names: use one of these as target, or TLS(server_name=...)",
    "CERTIFICATE_VERIFY_FAILED": "its certificate comes from no trusted CA: name the CA's file with `tls`",
}
_NOT_GRPC = ("HTTP status", "http2 header with status", "content-type", "Received http2")
_ANOTHER = "name another with target= or LAVANT_TARGET"


def explain(code: grpc.StatusCode, details: str) -> str:
    """Return gRPC's own error text in words for people; other texts unchanged."""
    if code is grpc.StatusCode.UNAVAILABLE and (found := _unreached(unquote(details))):
        return found
    if any(text in details for text in _NOT_GRPC) and code is not grpc.StatusCode.INTERNAL:
        return f"the server at this address speaks HTTP, not gRPC: use the address of lavant's gRPC port ({details})"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server does not know this call: it is not a lavant server, or an older release ({details})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer came in time: the server is overloaded, or what listens there is not lavant"
    return details


def _unreached(details: str) -> str | None:
    if found := _RESOLVING.search(details):
        return f"the host of {found['name']!r} cannot be found: check the name, or {_ANOTHER}"
    found = _CONNECTING.search(details)
    if found is None:
        return None
    address, cause = found["address"], found["cause"].strip()
    if any(text in cause for text in _OTHER_PROTOCOL):
        return (
            f"the server at {address} does not speak gRPC: use the address of lavant's gRPC port, "
            "which `lavant serve` prints as grpc=; its HTTP port is another"
        )
    for text, meaning in _TLS_CAUSES.items():
        if text in cause:
            return f"no secure connection to {address}: {meaning} ({_first_line(cause)})"
    if any(text in cause for text in _NO_TLS):
        return f"no secure connection to {address}: {_first_line(cause)}; `tls` must fit how the server is set up"
    if any(text in cause for text in _CLOSED):
        return (
            f"the server at {address} closes the connection: it may require TLS or a client certificate, see `tls`, "
            "or it is stopping"
        )
    reason = cause.removeprefix("Failed to connect to remote host: ").partition(" (")[0]
    return f"no server answers at {address}: {reason}; start one with `lavant serve`, or {_ANOTHER}"


def _first_line(cause: str) -> str:
    return cause.partition("\n")[0]


@dataclass(slots=True)
class Backoff:
    """Exponential delays with full jitter, in seconds, from `initial` up to `maximum`.

    `uniform(low, high)` is where the randomness comes from. Call `reset` on progress, and only then.
    """

    initial: float = 0.1
    maximum: float = 5.0
    factor: float = 2.0
    uniform: Callable[[float, float], float] = random.uniform
    _ceiling: float = field(default=0.0, init=False)

    def next(self, at_least: float | None = None) -> float:
        """Return the next delay, at least what the server asks for."""
        self._ceiling = min(self.maximum, self._ceiling * self.factor or self.initial)
        delay = self.uniform(self._ceiling / 2, self._ceiling)
        return delay if at_least is None else at_least + delay

    def reset(self) -> None:
        """Start again with the shortest delay."""
        self._ceiling = 0.0


_BY_REASON: dict[str, type[errors.LavantError]] = {
    kind.default_reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.LavantError) and kind.default_reason
}
# Their fields are attributes of the exception.
_DETAILS: dict[type[errors.LavantError], type[Message]] = {
    errors.ProducerGap: error_pb2.ProducerGap,
    errors.ProducerFenced: error_pb2.ProducerFenced,
    errors.ProducerConflict: error_pb2.ProducerConflict,
    errors.StaleAttempt: error_pb2.StaleAttempt,
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
# How a cut connection looks when no server spoke: a proxy that lost its upstream sends INTERNAL with
# RST_STREAM, and a write that the call's end overtook an error from gRPC's core.
_CUT_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
_CUT_TEXTS = ("RST_STREAM", "Stream removed", "GOAWAY", "Internal error from Core")


class _Call(Protocol):
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def from_rpc_error(error: grpc.RpcError) -> errors.LavantError:
    """Return the exception of a failed call."""
    call = cast("_Call", error)
    status = Status(code=call.code().value[0], message=call.details() or "")
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            status = _parse(value) or status
    return from_status(status)


def from_status(status: Status) -> errors.LavantError:
    """Return the exception of a google.rpc.Status, by its reason, else by its code."""
    code = _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in status.details:
        for message in (info, retry, bad):
            detail.Unpack(message)
    reason = info.reason if info.domain == ERROR_DOMAIN else None
    kind = _BY_REASON.get(reason or "") or _BY_CODE.get(code, errors.LavantError)
    text = status.message or code.name
    error = kind(
        explain(code, text) if info.domain != ERROR_DOMAIN else text,
        code=code,
        retry_after=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        metadata=info.metadata,
        violations=tuple(FieldViolation(path=v.field, description=v.description) for v in bad.field_violations),
    )
    error.reason = reason
    detail_type = _DETAILS.get(kind)
    if detail_type is not None:
        detail = detail_type()
        for packed in status.details:
            packed.Unpack(detail)
        for field in detail.DESCRIPTOR.fields:
            setattr(error, field.name, getattr(detail, field.name))
    return error


def is_cut(error: errors.LavantError) -> bool:
    """Return whether the connection failed rather than the call, so that a retry is right.

    A server reports a reason; among these, only UNAVAILABLE and SLOW_CONSUMER ask for a retry, and a quota that is free
    again after a time that the server names.
    """
    if isinstance(error, errors.QuotaExceeded) and error.retry_after is not None:
        return True
    if error.reason is not None:
        return isinstance(error, errors.Unavailable | errors.SlowConsumer)
    return error.code in _CUT_CODES or any(text in error.message for text in _CUT_TEXTS)


def raise_unless_succeeded(result: RunResult) -> None:
    """Raise the exception of a run that ended in another state than SUCCEEDED."""
    if result.state is RunState.SUCCEEDED:
        return
    raise _OUTCOMES.get(result.state, errors.RunFailed)(result)


def _parse(value: bytes) -> Status | None:
    try:
        return Status.FromString(value)
    except DecodeError:
        return None
