"""Checks on requests' fields: each raises INVALID_FIELD with the field's path and the rule."""

from collections.abc import Callable, Mapping

from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract import values
from lavant.contract.limits import (
    MAX_ID_LENGTH,
    MAX_LABEL_KEY_LENGTH,
    MAX_LABEL_VALUE_LENGTH,
    MAX_LABELS,
    MAX_NAME_LENGTH,
    OWN_RUNS,
)
from lavant.contract.text import is_name, is_run_id
from lavant.contract.violation import Violation
from lavant.server.errors import from_violation, invalid_field
from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import RunFilter

_MAX_CHOICES = 100


def check_id(path: str, value: str, *, at_most: int = MAX_ID_LENGTH) -> str:
    """An id that callers choose; it is part of keys, paths and tokens."""
    if value in {".", ".."}:
        raise invalid_field(path, "must not be . or .., which mean something else in a URL")
    if not is_run_id(value, at_most):
        raise invalid_field(path, f"must be 1 to {at_most} characters of A-Z a-z 0-9 . _ ~ -")
    return value


def check_callers_run(path: str, value: str) -> str:
    """The id of a run that a caller may change: not one of the server's own."""
    if check_id(path, value).startswith(OWN_RUNS):
        raise invalid_field(path, f"must not begin with {OWN_RUNS}: such runs are the server's own, to be read alone")
    return value


def check_text(path: str, value: str, *, at_least: int = 0, at_most: int = MAX_NAME_LENGTH) -> str:
    """A name for people: any characters but control characters."""
    if not at_least <= len(value) <= at_most:
        raise invalid_field(path, f"must be {at_least} to {at_most} characters long")
    if not is_name(value, at_least, at_most):
        raise invalid_field(path, "must not contain control characters")
    return value


def check_labels(path: str, labels: Mapping[str, str], *, at_most: int = MAX_LABELS) -> None:
    """A run's labels, or a score's."""
    if len(labels) > at_most:
        raise invalid_field(path, f"must be at most {at_most} labels")
    for key, value in labels.items():
        check_text(f"{path}.key", key, at_least=1, at_most=MAX_LABEL_KEY_LENGTH)
        check_text(f"{path}.value", value, at_most=MAX_LABEL_VALUE_LENGTH)


def check_enum(path: str, value: int, known: Mapping[str, int]) -> None:
    """An enum's value that this server knows."""
    if value not in known.values():
        raise invalid_field(path, f"must be one of {', '.join(known)}")


def check_page_size(path: str, value: int, *, default: int = 100, at_most: int = 1_000) -> int:
    """A page's size; 0: the default."""
    if not 0 <= value <= at_most:
        raise invalid_field(path, f"must be 0 to {at_most}")
    return value or default


def check_seconds(path: str, value: Duration, *, at_least: float, at_most: float) -> float:
    """A duration that is not negative, in seconds."""
    seconds = value.seconds + value.nanos / 1e9
    if not at_least <= seconds <= at_most or not 0 <= value.nanos < 1_000_000_000:
        raise invalid_field(path, f"must be {at_least:g} s to {at_most:g} s")
    return seconds


def check_time(path: str, value: Timestamp) -> None:
    """A point in time, as google.protobuf.Timestamp bounds it."""
    try:
        values.check_time(path, value)
    except Violation as violation:
        raise from_violation(violation) from None


def value_check(message_type: Descriptor) -> Callable[[str, Message], None]:
    """Return the check of all values in a type of message: see `lavant.contract.values`."""
    check = values.value_check(message_type)

    def check_values(path: str, message: Message) -> None:
        try:
            if check is not None:
                check(path, message)
        except Violation as violation:
            raise from_violation(violation) from None

    return check_values


def check_filter(path: str, run_filter: RunFilter) -> None:
    """A filter of runs. Its lists are bounded, since all of them are checked on the event loop."""
    for name, choices in (("kinds", run_filter.kinds), ("states", run_filter.states), ("names", run_filter.names)):
        if len(choices) > _MAX_CHOICES:
            raise invalid_field(f"{path}.{name}", f"must be at most {_MAX_CHOICES}")
    for index, kind in enumerate(run_filter.kinds):
        check_enum(f"{path}.kinds[{index}]", kind, dict(RunKind.items()))
    for index, state in enumerate(run_filter.states):
        check_enum(f"{path}.states[{index}]", state, dict(RunState.items()))
    for index, name in enumerate(run_filter.names):
        check_text(f"{path}.names[{index}]", name, at_least=1)
    check_labels(f"{path}.labels", run_filter.labels)
    check_text(f"{path}.conversation_id", run_filter.conversation_id)
    check_text(f"{path}.parent_run_id", run_filter.parent_run_id)
    check_time(f"{path}.created_after", run_filter.created_after)
    check_time(f"{path}.created_before", run_filter.created_before)
