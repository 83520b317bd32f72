"""Errors of calls, named by the contract's ErrorReason, and the errors that keep the server from starting."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import Message

from lavant.contract.status import REASON_PREFIX
from lavant.contract.values import TooManyOpen, Violation
from lavant.v1.error_pb2 import ErrorReason

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks a rule: its path, such as `batch.events[3].event_id`, and the rule."""

    path: str
    description: str


@dataclass(eq=False)
class ServiceError(Exception):
    """A failure to report to the caller; the only exception whose text leaves the server.

    `rpc.status` and `http.errors` map it to a status code with details. `retry_after` is in seconds; `detail` is the
    message of error.proto that the contract promises with the reason.
    """

    reason: "ErrorReason.ValueType"
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    violations: tuple[FieldViolation, ...] = ()
    resource: str = ""
    detail: Message | None = None

    @property
    def reason_name(self) -> str:
        """Name of the reason without its prefix, as it is sent to callers."""
        return ErrorReason.Name(self.reason).removeprefix(REASON_PREFIX)

    def __str__(self) -> str:
        return self.message


def invalid_field(path: str, description: str) -> ServiceError:
    """Return the error for a field that is missing, malformed or too large."""
    return ServiceError(
        ErrorReason.ERROR_REASON_INVALID_FIELD,
        f"{path}: {description}",
        violations=(FieldViolation(path, description),),
    )


def from_violation(violation: Violation) -> ServiceError:
    """Return the error for a value that breaks a rule of the contract."""
    if isinstance(violation, TooManyOpen):
        return ServiceError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            violation.description,
            metadata={"limit": str(violation.limit), "kind": violation.kind},
            violations=(FieldViolation(violation.path, violation.description),),
        )
    return invalid_field(violation.path, violation.description)


def run_not_found(run_id: str) -> ServiceError:
    """Return the error for a run that does not exist or belongs to another tenant: callers see no difference."""
    return ServiceError(
        ErrorReason.ERROR_REASON_RUN_NOT_FOUND,
        f"run {run_id} does not exist",
        metadata={"run_id": run_id},
        resource=run_id,
    )


def rule_not_found(rule_id: str) -> ServiceError:
    """Return the error for a rule that does not exist or belongs to another tenant: callers see no difference."""
    return ServiceError(
        ErrorReason.ERROR_REASON_RULE_NOT_FOUND,
        f"rule {rule_id} does not exist",
        metadata={"rule_id": rule_id},
        resource=rule_id,
    )


def unavailable(message: str, retry_after: float = 1.0) -> ServiceError:
    """Return the error of a server that is starting or draining, or whose store is unreachable."""
    return ServiceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message, retry_after=retry_after)


def data_loss(message: str) -> ServiceError:
    """Return the error for a stored record that fails its checksum."""
    return ServiceError(ErrorReason.ERROR_REASON_DATA_LOSS, message)


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def report_internal_error(error: Exception) -> str:
    """Log an unexpected exception under a random incident number; return a message for the caller that names it."""
    return incident_message(log_incident(error))


def log_incident(error: Exception) -> str:
    """Log an unexpected exception under a random incident number, and return the number.

    The exception's own text may hold data of other callers, so it goes to the log only.
    """
    incident = secrets.token_hex(4)
    _log.error("call_failed", incident=incident, exc_info=error)
    return incident


def incident_message(incident: str) -> str:
    """Return the message of an internal error for the caller."""
    return f"internal error; the server's log has details under incident {incident}"
