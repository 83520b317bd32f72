"""Files of a store: the lock that one process holds on them, and files that appear whole or not at all."""

import fcntl
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from lavant.server.store.sqlite.schema import IN_MEMORY, StoreLocked, StoreMoved

_COMPANIONS = ("-wal", "-shm")  # SQLite's own files beside an open store


class _Identity(NamedTuple):
    """Identity of a file, independent of the path by which it is reached."""

    device: int
    inode: int


class FileLock:
    """Lock on a store's file, held by one process at a time, until it releases the lock or ends.

    There are two locks. One is on a file beside the store, whose name shows people that the store is in use. The
    other is on the store's file itself: it is the same lock by every link and mount, and cannot be deleted.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Lock a store; `create` creates the file and its parent folders where they are missing.

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

        Writes to a file that was deleted or replaced are lost, and a store with two names is damaged by a process
        that opens it by the other name: SQLite derives the path of the write-ahead log from the name.
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
        """Return whether the only fault is that the write-ahead log, or its index, was deleted or renamed."""
        try:
            found = self._path.stat()
            is_there = _identity(found) == self._files[self._path] == _identity(self._named.stat())
        except OSError:
            return False
        return is_there and found.st_nlink == 1 and not Path(f"{self._path}-wal").exists()

    def release(self) -> None:
        """Release the store. All connections of this process to it must be closed before."""
        if self._store is not None:
            os.close(self._store)
        os.close(self._beside)

    def _lock_store(self, path: Path, create: bool) -> None:
        """Lock the store's file itself, by a descriptor that stays open as long as the store.

        flock is used because on Linux it is independent of the POSIX locks that SQLite holds on the same file. The
        descriptor matters too: closing any descriptor of a file drops all POSIX locks that the process has on it,
        and another process could then use the write-ahead log as its own. So this descriptor is closed after
        SQLite's, and stays open if the lock is refused: the owner may be this process. On other systems than Linux
        the two kinds of locks may conflict; there the lock beside the store must suffice.
        """
        if os.fspath(path) == IN_MEMORY:
            return
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(self._path, flags, 0o600)  # no other user may read the secret in it
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
                "stop that process, or name another file for this one"
            ) from error


def _identity(found: os.stat_result) -> _Identity:
    return _Identity(found.st_dev, found.st_ino)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents durably: a store in a folder that vanishes with a power failure is lost."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


_JOURNAL_MODES = 18  # offset in the header, https://sqlite.org/fileformat.html#file_format_version_numbers
_ROLLBACK = b"\x01\x01"


class PartialFile:
    """SQLite file that is being written at `path`: its destination's path with the suffix `.partial`.

    Unless it is kept, it is deleted at the end of the block. A process that is killed leaves the file, and the next
    one overwrites it. Raises StoreLocked if another process is writing it.
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
        """Mark the file as having no write-ahead log; no connection may have it open."""
        os.pwrite(self._descriptor, _ROLLBACK, _JOURNAL_MODES)

    def sync(self) -> None:
        """Make all writes durable."""
        os.fsync(self._descriptor)

    def keep(self) -> None:
        """Rename the file to its destination, atomically and durably."""
        self.sync()
        self.path.replace(self._destination)
        sync_folder(self._destination.parent)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = self._is_at(self.path)  # its previous writer may have renamed it meanwhile
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
