"""Reads that the disk refused, told from a file that is damaged: SQLite reports both as a damaged file."""

import ctypes
import errno

import apsw

_READ_FAILED = {errno.EIO, errno.ENXIO, errno.ERANGE}  # https://sqlite.org/src/file/src/os_unix.c, unixRead
_X_FILE_CONTROL = 10  # place of the method in sqlite3_io_methods, which SQLite never changes

_FileControl = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def read_failed(connection: apsw.Connection) -> bool:
    """Return whether the disk has refused to read the store or its write-ahead log on this connection.

    SQLite takes such an error for damage (SQLITE_IOERR_CORRUPTFS becomes SQLITE_CORRUPT), and the number of the
    system's error stays with the file alone. It stays there: a connection on which a read failed once says so for
    good, and what is damaged besides is found when the store is opened the next time.
    """
    number = ctypes.c_int()
    connection.file_control("main", apsw.SQLITE_FCNTL_LAST_ERRNO, ctypes.addressof(number))
    return number.value in _READ_FAILED or _log_errno(connection) in _READ_FAILED


def _log_errno(connection: apsw.Connection) -> int:
    """Last error of the system's on the write-ahead log, which only SQLite's own interface in C gives access to."""
    file, number = ctypes.c_void_p(), ctypes.c_int()
    connection.file_control("main", apsw.SQLITE_FCNTL_JOURNAL_POINTER, ctypes.addressof(file))
    if not file.value:
        return 0
    methods = ctypes.cast(file, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
    if not methods:  # the file is not open
        return 0
    _FileControl(methods[_X_FILE_CONTROL] or 0)(file, apsw.SQLITE_FCNTL_LAST_ERRNO, ctypes.addressof(number))
    return number.value
