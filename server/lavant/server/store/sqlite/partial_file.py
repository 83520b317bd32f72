"""Files that are written beside their place, and put there whole or not at all."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from lavant.server.store.sqlite.schema import StoreLocked

_JOURNAL_MODES = 18  # offset in the header, https://sqlite.org/fileformat.html#file_format_version_numbers
_ROLLBACK = b"\x01\x01"


class PartialFile:
    """A SQLite file in the making at `path`, which is its destination's with `.partial` behind it.

    Unless it is kept, nothing is left of it at the block's end. A process that is killed leaves it there,
    and the next one writes over it. Raises StoreLocked if another process is writing it.
    """

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f"{destination.name}.partial")
        self._destination = destination

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        try:
            self._lock()
            os.fchmod(self._descriptor, 0o600)  # it holds the key that signs tokens
            os.ftruncate(self._descriptor, 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_at(self.path):
            self.path.unlink()
        os.close(self._descriptor)

    def detach_wal(self) -> None:
        """Mark the file as one without a write-ahead log; no connection may have it open."""
        os.pwrite(self._descriptor, _ROLLBACK, _JOURNAL_MODES)

    def sync(self) -> None:
        """Make what was written durable."""
        os.fsync(self._descriptor)

    def keep(self) -> None:
        """Put the file in its place, in one step and durably."""
        self.sync()
        self.path.replace(self._destination)
        sync_folder(self._destination.parent)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = self._is_at(self.path)  # its last writer may have put it in its place meanwhile
        except BlockingIOError:
            is_ours = False
        if not is_ours:
            raise StoreLocked(f"{self._destination} is being written by another process; wait for it")

    def _is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except FileNotFoundError:
            return False


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
