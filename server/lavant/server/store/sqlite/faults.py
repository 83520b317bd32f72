"""How SQLite's failures are told to callers, and which of them no process should outlive."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from lavant.server.errors import LavantError, data_loss, unavailable
from lavant.server.store.sqlite.disk_errors import read_failed
from lavant.v1.error_pb2 import ErrorReason

_HARMLESS = {apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_CORRUPTFS}


@contextmanager
def explained(connection: apsw.Connection) -> Iterator[None]:
    """Turn a failure to read on a connection into what callers are told."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        if read_failed(connection):
            raise unavailable("the disk could not read the store") from error
        raise data_loss("the store's file is damaged at this place") from error
    except apsw.Error as error:
        raise unavailable("the store could not be read") from error


def is_fatal(error: Exception, connection: apsw.Connection) -> bool:
    """Tell whether the file can no longer be trusted, after a failure to write on a connection.

    After a failed fsync the kernel has forgotten the pages, and later commits would seem to
    succeed. Growing the shared index on a full disk is no such failure, nor is a read that the disk refused: what
    was written before is as it was.
    """
    if isinstance(error, apsw.IOError):
        return _extended(error) not in _HARMLESS
    return isinstance(error, apsw.CorruptError | apsw.NotADBError) and not read_failed(connection)


def is_full(error: Exception) -> bool:
    """Tell whether there was no room to write."""
    return isinstance(error, apsw.FullError) or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE


def explain(error: Exception) -> LavantError:
    """Turn a failure to write into what callers are told."""
    if is_full(error):
        return LavantError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, "the store has no room left; try again later", retry_after=5.0
        )
    return unavailable("the store could not write")


def _extended(error: Exception) -> int:
    return int(getattr(error, "extendedresult", 0))


def exit_process(_message: str) -> None:
    """End the process at once, without touching the file again: the next start recovers it."""
    logging.shutdown()
    os._exit(70)
