"""Ownership of a store's file: by one process at a time, and of the file that is at the store's path."""

import fcntl
import os
import sys
from pathlib import Path
from typing import NamedTuple

from lavant.server.store.sqlite.partial_file import sync_folder
from lavant.server.store.sqlite.schema import IN_MEMORY, StoreLocked, StoreMoved

_COMPANIONS = ("-wal", "-shm")  # SQLite's own files beside an open store


class _Identity(NamedTuple):
    """What tells one file from another, by whatever path it is reached."""

    device: int
    inode: int


class FileLock:
    """Lock of a store's file, held by one process at a time, until released or dead.

    There are two locks. One is on a file beside the store, whose name tells people who holds the store. The other
    is on the store's file itself: it is the same lock by every link and mount, and nobody can delete it.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Lock a store; `create` makes the file, and the folders above it, where they are missing.

        Raises StoreLocked while another process has the store.
        """
        self._named = path.absolute()
        self._path = path.resolve()
        self._files: dict[Path, _Identity] = {}
        self._store: int | None = None
        _make_folder(self._path.parent)
        lock_path = Path(f"{self._path}.lock")
        self._beside = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(self._beside, lock_path)
            self._lock_store(path, create)
        except BaseException:
            os.close(self._beside)
            raise

    def watch(self) -> None:
        """Begin to watch the store's file, before it is opened. Raises StoreMoved as `check` does."""
        self._files[self._path] = self._files[self._named] = _identity(self._path.stat())
        self.check()

    def watch_companions(self) -> None:
        """Begin to watch the files that SQLite keeps beside the store while it is open."""
        for suffix in _COMPANIONS:
            file = Path(f"{self._path}{suffix}")
            self._files[file] = _identity(file.stat())
        self.check()

    def check(self) -> None:
        """Raise StoreMoved unless the store's files are the ones that are open, each with one name.

        What is written to a file that was deleted or replaced is lost, and a store with two names is damaged by
        whoever opens it by the other one: SQLite looks for the write-ahead log by the name.
        """
        for file, identity in self._files.items():
            try:
                found = file.stat()
            except OSError as error:
                raise StoreMoved(f"{file} was deleted or moved away ({error.strerror})") from error
            if _identity(found) != identity:
                raise StoreMoved(f"{file} was replaced by another file")
            if found.st_nlink > 1:
                raise StoreMoved(f"{file} has {found.st_nlink} hard links; a store must have one name only")

    def has_lost_log(self) -> bool:
        """Return whether all that is wrong is that the write-ahead log, or its index, has lost its name."""
        try:
            found = self._path.stat()
            is_there = _identity(found) == self._files[self._path] == _identity(self._named.stat())
        except OSError:
            return False
        return is_there and found.st_nlink == 1 and not Path(f"{self._path}-wal").exists()

    def release(self) -> None:
        """Release the store. All of this process's connections to it must be closed."""
        if self._store is not None:
            os.close(self._store)
        os.close(self._beside)

    def _lock_store(self, path: Path, create: bool) -> None:
        """Lock the store's file itself, by a descriptor that stays open as long as the store.

        flock is chosen because Linux keeps it apart from the POSIX locks by which SQLite guards the same file. The
        descriptor matters as well: closing any descriptor of a file drops all POSIX locks that the process has on
        it, and another process could then take the write-ahead log for its own. So this one is closed after
        SQLite's, and one that was refused is left open: the owner may be this process. Elsewhere than on Linux the
        two kinds of locks may conflict; there the lock beside the store has to do.
        """
        if os.fspath(path) == IN_MEMORY:
            return
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(self._path, flags, 0o600)  # nobody else may read the secret in it
        except FileNotFoundError:
            return
        if sys.platform == "linux":
            self._lock(descriptor, self._path)
        self._store = descriptor

    def _lock(self, descriptor: int, held: Path) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreLocked(
                f"{self._path} is in use by another process, which holds {held}; "
                "stop that process, or give this one another file"
            ) from error


def _identity(found: os.stat_result) -> _Identity:
    return _Identity(found.st_dev, found.st_ino)


def _make_folder(folder: Path) -> None:
    """Create a folder with those above it, durably: a store in a folder that a power cut takes away is lost."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
