"""Bounds that peers share: no single address takes all of what the server has."""

from collections import Counter
from contextvars import ContextVar
from functools import lru_cache
from math import ceil
from urllib.parse import unquote

from lavant.server.errors import ServiceError
from lavant.v1.error_pb2 import ErrorReason

PEER: ContextVar[str] = ContextVar("peer", default="")  # address of the present call's peer


class PeerLimit:
    """Bound of what is open at once, in all and per address: one address holds at most a `share` of it.

    `kind` names what is counted, for programs; `open_text` says that of so many of it, for people.
    """

    def __init__(self, limit: int, share: float, kind: str, open_text: str) -> None:
        self.limit = limit
        self.per_peer = ceil(limit * share)
        self.total = 0
        self._kind = kind
        self._open_text = open_text
        self._held: Counter[str] = Counter()

    def enter(self, peer: str, amount: int = 1) -> None:
        """Count what an address opens. Raises QUOTA_EXCEEDED beyond a bound."""
        of_server, of_peer = self.total + amount > self.limit, self._held[peer] + amount > self.per_peer
        if of_server or of_peer:
            bound, whose = (self.limit, "this server allows") if of_server else (self.per_peer, "one address may have")
            raise ServiceError(
                ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
                f"{bound} {self._open_text}, the most {whose}; retry later",
                metadata={"kind": self._kind, "limit": str(bound)},
                retry_after=1.0,
                resource=self._kind,
            )
        self.total += amount
        self._held[peer] += amount

    def leave(self, peer: str, amount: int = 1) -> None:
        """Count what an address has closed."""
        self.total -= amount
        self._held[peer] -= amount
        if not self._held[peer]:
            del self._held[peer]


def address_of(peer: str) -> str:
    """Return the address of a peer that gRPC names with its port: `ipv4:10.0.0.1:80`, `ipv6:%5B::1%5D:80`."""
    return _address(peer.rpartition(":")[0])


@lru_cache(4_096)
def _address(host: str) -> str:
    return unquote(host.partition(":")[2]).strip("[]")
