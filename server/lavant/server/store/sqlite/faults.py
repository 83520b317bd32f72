"""How SQLite's failures are told to callers, and which of them no process should outlive."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from lavant.server.errors import LavantError, data_loss, unavailable
from lavant.v1.error_pb2 import ErrorReason

logger = logging.getLogger(__name__)


@contextmanager
def explained() -> Iterator[None]:
    """Turn a failure to read into what callers are told."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        raise data_loss("the store's file is damaged at this place") from error
    except apsw.Error as error:
        raise unavailable("the store could not be read") from error


def is_fatal(error: Exception) -> bool:
    """Tell whether the file can no longer be trusted.

    After a failed fsync the kernel has forgotten the pages, and later commits would seem to
    succeed. Growing the shared index on a full disk is no such failure.
    """
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_SHMSIZE
    return isinstance(error, apsw.CorruptError | apsw.NotADBError)


def explain(error: Exception) -> LavantError:
    """Turn a failure to write into what callers are told."""
    if isinstance(error, apsw.FullError | apsw.IOError):
        return LavantError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, "the store has no room left; try again later", retry_after=5.0
        )
    logger.error("a group of changes could not be written", exc_info=error)
    return unavailable("the store could not write")


def exit_process(_message: str) -> None:
    """End the process at once, without touching the file again: the next start recovers it."""
    logging.shutdown()
    os._exit(70)
