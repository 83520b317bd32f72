"""Backlog of a store: the bytes that wait to be written, by tenant."""

from collections import Counter

MAX_BYTES = 256 << 20


class Backlog:
    """Bytes that wait, up to MAX_BYTES in all; then only tenants with less than their share may add any."""

    def __init__(self) -> None:
        self._bytes = Counter[str]()
        self._total = 0

    def add(self, tenant: str, size: int) -> None:
        """Count bytes of a tenant."""
        self._bytes[tenant] += size
        self._total += size

    def remove(self, tenant: str, size: int) -> None:
        """Count bytes no more that were written or refused."""
        self._total -= size
        self._bytes[tenant] -= size
        if not self._bytes[tenant]:
            del self._bytes[tenant]

    def is_full(self, tenant: str) -> bool:
        """Return whether a tenant must wait before it adds more."""
        if self._total < MAX_BYTES:
            return False
        others = len(self._bytes) - (tenant in self._bytes)
        return self._bytes[tenant] >= MAX_BYTES / (others + 1)
