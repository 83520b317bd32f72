"""A disk that a test watches and breaks: SQLite's own files, reached through a layer that fails as a disk would."""

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw

# ruff: noqa: N802 - the methods are SQLite's

Condition = Callable[[str, str], int | None]


@dataclass(slots=True)
class Disk:
    """What was done to files whose names end with one of `SUFFIXES`, and what fails.

    `fails` is asked before each operation with its kind ("write", "sync", "truncate", "read") and the file's suffix
    ("db", "-wal", "-shm"); it returns the extended SQLite result to fail with, or None.
    """

    fails: Condition = lambda kind, suffix: None
    done: list[tuple[str, str]] = field(default_factory=list)
    errno: int = 0

    def unsynced(self, suffix: str) -> bool:
        """Whether a file was written to after it was last made durable."""
        kinds = [kind for kind, found in self.done if found == suffix and kind != "read"]
        return bool(kinds) and kinds[-1] != "sync"

    def meet(self, kind: str, suffix: str) -> None:
        """Take note of an operation, or fail."""
        result = self.fails(kind, suffix)
        if result is not None:
            self.errno = errno.EIO
            raise apsw.exception_for(result)
        self.done.append((kind, suffix))


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk, self._suffix = disk, _suffix(path)
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:
        self._disk.meet("sync", self._suffix)
        super().xSync(flags)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.meet("write", self._suffix)
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.meet("truncate", self._suffix)
        super().xTruncate(size)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet("read", self._suffix)
        return super().xRead(amount, offset)

    def xFileControl(self, op: int, pointer: int) -> bool:
        if op == apsw.SQLITE_FCNTL_LAST_ERRNO:
            ctypes.c_int.from_address(pointer).value = self._disk.errno
            return True
        return super().xFileControl(op, pointer)


class _Layer(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__("watched", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


@contextmanager
def watched_disk() -> Iterator[Disk]:
    """Have SQLite reach all files that it opens in this block over a disk that is watched."""
    disk = Disk()
    layer = _Layer(disk)
    try:
        yield disk
    finally:
        apsw.set_default_vfs("unix")
        layer.unregister()


def _suffix(path: str | None) -> str:
    return next((suffix for suffix in ("-wal", "-shm") if (path or "").endswith(suffix)), "db")
