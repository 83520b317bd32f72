"""Failures of SQLite: which ones end the process, the errors that callers receive, and when they are logged."""

import ctypes
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from lavant.server.errors import ServiceError, data_loss, unavailable
from lavant.v1.error_pb2 import ErrorReason

_HARMLESS = {apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_CORRUPTFS}


@contextmanager
def explained(connection: apsw.Connection) -> Iterator[None]:
    """Translate a failure to read on a connection into the error that callers receive, unless it was interrupted."""
    try:
        yield
    except apsw.InterruptError:
        raise
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError) as error:
        if read_failed(connection):
            raise unavailable("the disk could not read the store") from error
        raise data_loss("the store's file is damaged at this place") from error
    except apsw.Error as error:
        raise unavailable("the store could not be read") from error


def is_fatal(error: Exception, connection: apsw.Connection) -> bool:
    """Return whether the file can no longer be trusted, after a failure to write on a connection.

    After a failed fsync the kernel has dropped the pages, and later commits would seem to succeed. Failing to grow
    the shared index on a full disk is not fatal, nor is a read that the disk refused: earlier writes are intact.
    """
    if isinstance(error, apsw.IOError):
        return _extended(error) not in _HARMLESS
    return isinstance(error, apsw.CorruptError | apsw.NotADBError) and not read_failed(connection)


def is_full(error: Exception) -> bool:
    """Return whether a write failed because the store or the disk is full."""
    return isinstance(error, apsw.FullError) or _extended(error) == apsw.SQLITE_IOERR_SHMSIZE


def explain(error: Exception) -> ServiceError:
    """Return the error that callers receive for a failure to write."""
    if is_full(error):
        return ServiceError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, "the store has no room left; try again later", retry_after=5.0
        )
    return unavailable("the store could not write")


def _extended(error: Exception) -> int:
    return int(getattr(error, "extendedresult", 0))


def exit_process(_message: str) -> None:
    """End the process at once, without touching the file again: the next start recovers it."""
    logging.shutdown()
    os._exit(70)


_READ_FAILED = {errno.EIO, errno.ENXIO, errno.ERANGE}  # https://sqlite.org/src/file/src/os_unix.c, unixRead
_X_FILE_CONTROL = 10  # index of the method in sqlite3_io_methods, which SQLite never changes

_FileControl = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def read_failed(connection: apsw.Connection) -> bool:
    """Return whether the disk has refused to read the store or its write-ahead log on this connection.

    SQLite reports such an error as damage (SQLITE_IOERR_CORRUPTFS becomes SQLITE_CORRUPT), and keeps the system's
    errno only in its file object. It is never reset: a connection on which a read failed once reports it until it
    is closed, and damage besides is found when the store is next opened.
    """
    number = ctypes.c_int()
    connection.file_control("main", apsw.SQLITE_FCNTL_LAST_ERRNO, ctypes.addressof(number))
    return number.value in _READ_FAILED or _log_errno(connection) in _READ_FAILED


def _log_errno(connection: apsw.Connection) -> int:
    """Return the last errno of the write-ahead log, which is available only through SQLite's C interface."""
    file, number = ctypes.c_void_p(), ctypes.c_int()
    connection.file_control("main", apsw.SQLITE_FCNTL_JOURNAL_POINTER, ctypes.addressof(file))
    if not file.value:
        return 0
    methods = ctypes.cast(file, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    if not methods:  # the file is not open
        return 0
    _FileControl(methods[_X_FILE_CONTROL] or 0)(file, apsw.SQLITE_FCNTL_LAST_ERRNO, ctypes.addressof(number))
    return number.value


logger = logging.getLogger(__name__)


class Trouble:
    """State of writing, for the log: whether the last groups of changes were written or refused."""

    def __init__(self) -> None:
        self._refused = 0  # bytes of the smallest group refused since writing began to fail; 0: writing works

    def refused(self, error: Exception, size: int) -> None:
        """Record that a group could not be written."""
        if not self._refused:
            what = "has no room left" if is_full(error) else "cannot be written"
            logger.error("the store %s: appends are refused until that changes (%s)", what, error)
        self._refused = min(self._refused or size, size) or 1

    def written(self, size: int) -> None:
        """Record that a group was written; one smaller than a refused group proves nothing: it may just have fitted."""
        if self._refused and size >= self._refused:
            self._refused = 0
            logger.warning("the store can be written again")
