"""What a refused call says of itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode, aio

from lavant.contract.status import ERROR_DOMAIN, STATUS_DETAILS_KEY
from lavant.server.rpc.status import CODES
from lavant.v1.error_pb2 import ErrorReason

# Texts that show the server's inside.
LEAKS = ("Traceback", "DecodeError", "lavant.server", "apsw", "Exception", "Error:", ".py", "secret")
_DetailT = TypeVar("_DetailT", bound=Message)


@dataclass(slots=True)
class Refusal:
    """A status and its details, once it is there."""

    code: StatusCode = StatusCode.UNKNOWN
    status: Status = field(default_factory=Status)

    def read(self, error: aio.AioRpcError) -> None:
        """Take in how a call ended; its status and the one in its trailers must agree."""
        trailers = dict(iter(error.trailing_metadata()))
        self.code = error.code()
        self.status = Status.FromString(bytes(trailers.get(STATUS_DETAILS_KEY, b"")))
        if STATUS_DETAILS_KEY in trailers:
            assert (self.status.code, self.status.message) == (error.code().value[0], error.details())
        else:
            self.status.message = error.details() or ""

    def detail(self, kind: type[_DetailT]) -> _DetailT:
        """The detail of a kind; fails unless there is exactly one."""
        (found,) = [detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR)]
        result = kind()
        found.Unpack(result)
        return result

    @property
    def reason(self) -> str:
        """The ErrorReason without its prefix."""
        return str(self.detail(ErrorInfo).reason)

    @property
    def metadata(self) -> dict[str, str]:
        """What ErrorInfo says beside the reason."""
        return dict(self.detail(ErrorInfo).metadata)

    @property
    def path(self) -> str:
        """The field that breaks a rule."""
        (violation,) = self.detail(BadRequest).field_violations
        assert self.status.message == f"{violation.field}: {violation.description}"
        return str(violation.field)

    def check(self, reason: str) -> None:
        """Fail unless this is the contract's answer for a reason, and shows nothing of the server's inside."""
        assert self.reason == reason, self.status
        assert self.detail(ErrorInfo).domain == ERROR_DOMAIN
        assert self.code == CODES[ErrorReason.Value(f"ERROR_REASON_{reason}")]
        self.check_discretion()

    def check_discretion(self) -> None:
        """Fail if the status shows anything of the server's inside."""
        told = self.status.message + "".join(str(detail.value) for detail in self.status.details)
        assert not [leak for leak in LEAKS if leak in told]


def rejection(status: Status, reason: str) -> Refusal:
    """Read a status that came within a message."""
    (code,) = [code for code in StatusCode if code.value[0] == status.code]
    refusal = Refusal(code, status)
    refusal.check(reason)
    return refusal


@contextmanager
def refused(reason: str, path: str | None = None) -> Iterator[Refusal]:
    """Expect a call to be refused for a reason, and perhaps for a field."""
    refusal = Refusal()
    with pytest.raises(aio.AioRpcError) as caught:
        yield refusal
    refusal.read(caught.value)
    refusal.check(reason)
    if path is not None:
        assert refusal.path == path
