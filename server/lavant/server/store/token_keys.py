"""Keys of a store that sign tokens: how they are rotated, and in which form a store keeps them."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_KEY_ID = "store"
# Seconds until a new key signs: by then, every server of the store has read it and verifies what it signs.
ACTIVATION_DELAY = 30.0
_BYTES = 32
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that signs tokens from `signs_from_ns` until a newer one does, in wall time.

    It verifies tokens as soon as a server knows it, until `expires_ns`; None: without end.
    """

    id: str
    secret: bytes = field(repr=False)
    signs_from_ns: int = 0
    expires_ns: int | None = None


def first_key() -> TokenKey:
    """Return the key of a new store."""
    return TokenKey(FIRST_KEY_ID, secrets.token_bytes(_BYTES))


def rotated(keys: Sequence[TokenKey], now_ns: int, verify_for: float, *, replaced: bool = True) -> list[TokenKey]:
    """Return the keys after a rotation: a new one, and the earlier ones, which verify for `verify_for` more seconds.

    The new key signs after ACTIVATION_DELAY. Not `replaced`: there is no new key, and tokens are signed with the keys
    of the settings from the next start on.
    """
    expires_ns = now_ns + round(verify_for * _SECOND_NS)
    kept = []
    for key in keys:
        end = expires_ns if key.expires_ns is None else min(expires_ns, key.expires_ns)
        if end > now_ns:
            kept.append(TokenKey(key.id, key.secret, key.signs_from_ns, end))
    if not replaced:
        return kept
    signs_from_ns = now_ns + round(ACTIVATION_DELAY * _SECOND_NS) if keys else 0
    return [*kept, TokenKey(_next_id(keys), secrets.token_bytes(_BYTES), signs_from_ns)]


def usable(keys: Sequence[TokenKey], now_ns: int) -> dict[str, bytes]:
    """Return the keys that verify tokens at a time, by ID; the one that signs is the first."""
    valid = [key for key in keys if key.expires_ns is None or key.expires_ns > now_ns]
    active = [key for key in valid if key.signs_from_ns <= now_ns]
    waiting = [key for key in valid if key.signs_from_ns > now_ns]
    newest_first = sorted(active, key=lambda key: key.signs_from_ns, reverse=True)
    return {key.id: key.secret for key in (*newest_first, *waiting)}


def encode(keys: Sequence[TokenKey]) -> str:
    """Return the form in which a store keeps its keys: JSON."""
    return json.dumps(
        [
            {"id": key.id, "secret": key.secret.hex(), "signs_from_ns": key.signs_from_ns, "expires_ns": key.expires_ns}
            for key in keys
        ]
    )


def decode(stored: str | bytes) -> tuple[TokenKey, ...]:
    """Return the keys of a store. A store that never rotated its key may hold only its bytes."""
    if isinstance(stored, bytes):
        return (TokenKey(FIRST_KEY_ID, stored),)
    return tuple(
        TokenKey(key["id"], bytes.fromhex(key["secret"]), key["signs_from_ns"], key["expires_ns"])
        for key in json.loads(stored)
    )


def _next_id(keys: Sequence[TokenKey]) -> str:
    """Return an ID that none of the keys has: store, store-2, store-3 …"""
    numbers = [int(key.id.rpartition("-")[2]) if "-" in key.id else 1 for key in keys]
    return f"{FIRST_KEY_ID}-{max(numbers) + 1}" if numbers else FIRST_KEY_ID
