"""The logs that are being written to, as they will be once all that is queued is durable."""

from collections import OrderedDict
from itertools import islice

import apsw

from lavant.server.errors import run_not_found
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.sqlite.faults import explained
from lavant.server.store.sqlite.rows import RUN_COLUMNS, decode_run

DEFAULT_CAPACITY = 10_000
_LOOKED_AT = 16
_SELECT = f"SELECT {RUN_COLUMNS} FROM runs WHERE tenant = ? AND run_id = ?"  # noqa: S608 - constants


class Entry:
    """A run's row and log. `log` is None once the run is deleted.

    `pending` counts queued changes; `settled_ns` is when the last of them became durable, in wall time.
    """

    __slots__ = ("key", "log", "pending", "row", "settled_ns")

    def __init__(self, row: int, key: RunKey, log: LogState) -> None:
        self.row = row
        self.key = key
        self.log: LogState | None = log
        self.pending = 0
        self.settled_ns = 0


class Logs:
    """The most recently used logs; others are read from the file, which blocks for some 10 µs.

    A log with queued changes is never dropped, since the file does not show them yet.
    """

    def __init__(self, connection: apsw.Connection, capacity: int = DEFAULT_CAPACITY) -> None:
        self._connection = connection
        self._capacity = capacity
        self._entries: OrderedDict[RunKey, Entry] = OrderedDict()

    def find(self, key: RunKey) -> tuple[Entry, LogState] | None:
        """Look a run up; None: there is none, or it is deleted."""
        entry = self._entries.get(key)
        if entry is None:
            entry = load(self._connection, key)
            if entry is None:
                return None
            self.add(entry)
        else:
            self._entries.move_to_end(key)
        return None if entry.log is None else (entry, entry.log)

    def get(self, key: RunKey) -> tuple[Entry, LogState]:
        """Look a run up, or raise RUN_NOT_FOUND."""
        found = self.find(key)
        if found is None:
            raise run_not_found(key.run_id)
        return found

    def is_pending(self, key: RunKey) -> bool:
        """Tell whether changes of a run are queued."""
        entry = self._entries.get(key)
        return entry is not None and entry.pending > 0

    def add(self, entry: Entry) -> None:
        """Take a log in, and drop one that was not used for long."""
        self._entries[entry.key] = entry
        self._entries.move_to_end(entry.key)
        if len(self._entries) > self._capacity:
            idle = (key for key, old in islice(self._entries.items(), _LOOKED_AT) if not old.pending)
            if (key := next(idle, None)) is not None:
                del self._entries[key]

    def settle(self, entry: Entry, now_ns: int) -> None:
        """Count one queued change less; a log that nothing can be added to is forgotten with the last."""
        entry.pending -= 1
        entry.settled_ns = now_ns
        over = entry.log is None or entry.log.sealed
        if over and not entry.pending and self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    def clear(self) -> None:
        """Forget everything: what the file shows is what there is."""
        self._entries.clear()


def load(connection: apsw.Connection, key: RunKey) -> Entry | None:
    """Read a run from the file; raises DATA_LOSS if it is damaged."""
    with explained(connection):
        values = connection.execute(_SELECT, key).fetchone()
    if values is None:
        return None
    row, _, log = decode_run(values)
    return Entry(row, key, log)
