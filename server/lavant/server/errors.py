"""What can go wrong in a call, named by the contract's ErrorReason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lavant.contract.violation import TooManyOpen, Violation
from lavant.v1.error_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A request's field that breaks a rule: its path, `batch.events[3].event_id`, and the rule."""

    path: str
    description: str


@dataclass(eq=False)
class LavantError(Exception):
    """A failure that the caller is told of; the only exception whose text leaves the server.

    `rpc.status` turns it into a status code with details. `retry_after` is in seconds.
    """

    reason: "ErrorReason.ValueType"
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    violations: tuple[FieldViolation, ...] = ()
    resource: str = ""

    def __str__(self) -> str:
        return self.message


def invalid_field(path: str, description: str) -> LavantError:
    """A field is missing, malformed or too large."""
    return LavantError(
        ErrorReason.ERROR_REASON_INVALID_FIELD,
        f"{path}: {description}",
        violations=(FieldViolation(path, description),),
    )


def from_violation(violation: Violation) -> LavantError:
    """A value breaks a rule of the contract."""
    if isinstance(violation, TooManyOpen):
        return LavantError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            violation.description,
            metadata={"limit": str(violation.limit), "kind": violation.kind},
            violations=(FieldViolation(violation.path, violation.description),),
        )
    return invalid_field(violation.path, violation.description)


def run_not_found(run_id: str) -> LavantError:
    """No such run, or not the caller's: the two must look the same."""
    return LavantError(
        ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
        f"run {run_id} does not exist",
        metadata={"run_id": run_id},
        resource=run_id,
    )


def rule_not_found(rule_id: str) -> LavantError:
    """No such rule, or not the caller's: the two must look the same."""
    return LavantError(
        ErrorReason.ERROR_REASON_RULE_NOT_FOUND,
        f"rule {rule_id} does not exist",
        metadata={"rule_id": rule_id},
        resource=rule_id,
    )


def unavailable(message: str, retry_after: float = 1.0) -> LavantError:
    """The server is starting or draining, or its store is out of reach."""
    return LavantError(ErrorReason.ERROR_REASON_UNAVAILABLE, message, retry_after=retry_after)


def data_loss(message: str) -> LavantError:
    """A stored record fails its checksum."""
    return LavantError(ErrorReason.ERROR_REASON_DATA_LOSS, message)


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""
