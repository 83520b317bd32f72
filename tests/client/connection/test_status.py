"""Statuses become exceptions."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lavant.client import (
    ConsumerBusy,
    InvalidField,
    LavantError,
    ProducerFenced,
    ProducerGap,
    RunAbandoned,
    RunCancelled,
    RunFailed,
    RunResult,
    RunState,
    RunTimedOut,
    SlowConsumer,
    StaleAttempt,
    StreamDisplaced,
    Unavailable,
)
from lavant.client._wire.status import from_status, is_cut, raise_unless_succeeded
from lavant.contract.status import ERROR_DOMAIN
from lavant.v1 import error_pb2
from lavant.v1.error_pb2 import ErrorReason


def status(code: grpc.StatusCode, *details: Message, message: str = "said") -> Status:
    built = Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        built.details.append(packed)
    return built


def reason(name: str, **metadata: str) -> ErrorInfo:
    return ErrorInfo(domain=ERROR_DOMAIN, reason=name, metadata=metadata)


@pytest.mark.parametrize("name", [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number])
def test_every_reason_has_a_class_of_its_own(name: str) -> None:
    error = from_status(status(grpc.StatusCode.ABORTED, reason(name)))
    assert type(error) is not LavantError
    assert error.reason == name == type(error).default_reason


def test_details_are_read() -> None:
    retry = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    busy = from_status(status(grpc.StatusCode.UNAVAILABLE, reason("CONSUMER_BUSY", place="p"), retry))
    assert isinstance(busy, ConsumerBusy)
    assert (busy.message, busy.code) == ("said", grpc.StatusCode.UNAVAILABLE)
    assert (busy.retry_after, busy.metadata) == (1.5, {"place": "p"})


def test_typed_details_are_attributes() -> None:
    gap = error_pb2.ProducerGap(expected_producer_sequence=7, follows_rejection=True)
    error = from_status(status(grpc.StatusCode.FAILED_PRECONDITION, reason("PRODUCER_GAP"), gap))
    assert isinstance(error, ProducerGap)
    assert (error.expected_producer_sequence, error.follows_rejection) == (7, True)
    fenced = from_status(status(grpc.StatusCode.ABORTED, reason("PRODUCER_FENCED"), error_pb2.ProducerFenced(epoch=3)))
    assert isinstance(fenced, ProducerFenced)
    assert fenced.epoch == 3
    stripped = from_status(status(grpc.StatusCode.ABORTED, reason("STALE_ATTEMPT")))
    assert isinstance(stripped, StaleAttempt)
    assert stripped.attempt == 0


def test_violations_are_read() -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="run_id", description="too long")])
    error = from_status(status(grpc.StatusCode.INVALID_ARGUMENT, reason("INVALID_FIELD"), bad))
    assert isinstance(error, InvalidField)
    assert [(v.path, v.description) for v in error.violations] == [("run_id", "too long")]


def test_without_a_reason_the_code_decides() -> None:
    assert type(from_status(status(grpc.StatusCode.UNAVAILABLE))) is Unavailable
    assert type(from_status(status(grpc.StatusCode.UNIMPLEMENTED))) is LavantError


def test_reasons_of_other_domains_are_not_ours() -> None:
    other = ErrorInfo(domain="googleapis.com", reason="RUN_NOT_FOUND")
    error = from_status(status(grpc.StatusCode.UNAVAILABLE, other))
    assert type(error) is Unavailable
    assert error.reason is None


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (status(grpc.StatusCode.UNAVAILABLE), True),
        (status(grpc.StatusCode.UNAVAILABLE, reason("UNAVAILABLE")), True),
        (status(grpc.StatusCode.RESOURCE_EXHAUSTED, reason("SLOW_CONSUMER")), True),
        (status(grpc.StatusCode.CANCELLED), True),
        (status(grpc.StatusCode.DEADLINE_EXCEEDED), True),
        (status(grpc.StatusCode.INTERNAL, message="Received RST_STREAM with error code 2"), True),
        (status(grpc.StatusCode.INTERNAL), False),
        (status(grpc.StatusCode.RESOURCE_EXHAUSTED, reason("QUOTA_EXCEEDED")), False),
        (status(grpc.StatusCode.ABORTED, reason("STREAM_DISPLACED")), False),
        (status(grpc.StatusCode.ABORTED, reason("STALE_ATTEMPT")), False),
        (status(grpc.StatusCode.UNAUTHENTICATED), False),
    ],
)
def test_only_cuts_are_worth_another_call(failure: Status, expected: bool) -> None:
    assert is_cut(from_status(failure)) is expected


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (RunState.FAILED, RunFailed),
        (RunState.CANCELLED, RunCancelled),
        (RunState.TIMED_OUT, RunTimedOut),
        (RunState.ABANDONED, RunAbandoned),
    ],
)
def test_outcomes_are_never_mistaken_for_success(state: RunState, kind: type[LavantError]) -> None:
    with pytest.raises(kind):
        raise_unless_succeeded(RunResult(run_id="r", state=state))


def test_success_is_no_error() -> None:
    raise_unless_succeeded(RunResult(run_id="r", state=RunState.SUCCEEDED))


def test_errors_know_their_reason_without_a_server() -> None:
    assert SlowConsumer("slow").reason == "SLOW_CONSUMER"
    assert StreamDisplaced("gone").code is None
