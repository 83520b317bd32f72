"""Sizes of what tenants have stored, kept in memory by the engines."""

from collections import Counter
from collections.abc import Mapping

from lavant.server.model import RunKey


class StoredBytes:
    """Bytes of the stored events of each tenant's runs."""

    def __init__(self, stored: Mapping[str, int] | None = None) -> None:
        self._stored = Counter(stored or {})

    def of(self, tenant: str) -> int:
        """Return the bytes of a tenant."""
        return self._stored[tenant]

    def add(self, tenant: str, size: int) -> None:
        """Count bytes that were stored, or deleted if negative."""
        self._stored[tenant] += size
        if not self._stored[tenant]:
            del self._stored[tenant]


class SharedStoredBytes(StoredBytes):
    """Bytes that this replica knows of: those of all listed runs, and what it has appended to them since.

    What other replicas append to an open run is counted once the run is listed again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._grown: dict[RunKey, tuple[int, int]] = {}  # runs larger than listed: their listed and their stored bytes

    def grew(self, key: RunKey, listed: int, stored: int) -> None:
        """Record that this replica has appended to a run that is listed with some bytes, or soon will be."""
        listed, before = self._grown.get(key, (listed, listed))
        self._grown[key] = (listed, stored)
        self.add(key.tenant, stored - before)

    def listed(self, key: RunKey, before: int, now: int, *, deleted: bool) -> None:
        """Record that the list has a run with other bytes than before, or has it no longer."""
        listed, stored = self._grown.pop(key, (0, 0))
        self.add(key.tenant, now - before - (stored - listed))
        if stored > now and not deleted:
            self._grown[key] = (now, stored)
            self.add(key.tenant, stored - now)
