"""Checks of request fields that depend on more than the bounds which the contract declares for a field."""

from lavant.contract.limits import MAX_ID_LENGTH, MAX_NAME_LENGTH, MAX_SETTINGS_BYTES, OWN_RUNS
from lavant.contract.text import is_name, is_run_id
from lavant.server.errors import invalid_field
from lavant.v1.run_pb2 import RunSettings

DEFAULT_PAGE_SIZE = 100


def check_callers_run(path: str, run_id: str) -> str:
    """Return the ID of a run that callers may change, or raise INVALID_FIELD for any other text and for system runs."""
    if not is_run_id(run_id):
        raise invalid_field(path, f"must be 1 to {MAX_ID_LENGTH} characters of A-Z a-z 0-9 . _ ~ -, and not . or ..")
    if run_id.startswith(OWN_RUNS):
        raise invalid_field(path, f"must not start with {OWN_RUNS}: system runs can be read, and nothing else")
    return run_id


def check_settings_size(path: str, settings: RunSettings) -> None:
    """Raise INVALID_FIELD if a run's settings are too large: they are stored again with every batch of the run."""
    if (size := settings.ByteSize()) > MAX_SETTINGS_BYTES:
        raise invalid_field(
            path, f"must have at most {MAX_SETTINGS_BYTES:,} bytes in all, not {size:,}; shorten labels"
        )


def check_text(path: str, value: str, *, at_least: int = 0, at_most: int = MAX_NAME_LENGTH) -> str:
    """Return text without control characters, of a length within bounds, or raise INVALID_FIELD."""
    if not at_least <= len(value) <= at_most:
        raise invalid_field(path, f"must be {at_least} to {at_most} characters long")
    if not is_name(value, at_least, at_most):
        raise invalid_field(path, "must not contain control characters")
    return value
