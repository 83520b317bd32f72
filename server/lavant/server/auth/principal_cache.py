"""Cache of the principals of credentials whose verification takes long."""

from collections.abc import Callable
from hashlib import sha256

from lavant.server.auth.principal import Principal
from lavant.server.clock import Clock

_MAX_CACHED = 10_000  # credentials


class PrincipalCache:
    """Principals of verified credentials, by the SHA-256 of their texts, until they expire or too many came since."""

    def __init__(self, clock: Clock, limit: int = _MAX_CACHED) -> None:
        self._clock = clock
        self._limit = limit
        self._principals: dict[bytes, Principal] = {}

    def get(self, text: str, verify: Callable[[str, bytes], Principal]) -> Principal:
        """Return the principal of a credential, which `verify` returns from the text and its digest, or raises."""
        digest = sha256(text.encode()).digest()
        principal = self._principals.get(digest)
        if principal is not None and (principal.expires_ns is None or self._clock.time_ns() < principal.expires_ns):
            return principal
        self._principals.pop(digest, None)
        principal = verify(text, digest)
        if len(self._principals) >= self._limit:
            del self._principals[next(iter(self._principals))]
        self._principals[digest] = principal
        return principal

    def clear(self) -> None:
        """Forget all principals."""
        self._principals.clear()
