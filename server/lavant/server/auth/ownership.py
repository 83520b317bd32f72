"""Ownership by principals: the owner of what a call makes, and sessions that nobody else can continue."""

from hashlib import sha256

from lavant.server.auth.principal import ANONYMOUS, Principal, Scope
from lavant.server.store.ownership import Owner

_LONGEST = 40  # bytes of an ID that is stored with every producer; longer ones are stored as a digest
_DIGITS = 32  # of a digest: 128 bits


def owner_of(principal: Principal) -> Owner:
    """Return the owner of what a call of a principal makes."""
    may_take_over = Scope.RUNS_TAKE_OVER in principal.scopes
    if principal.id == ANONYMOUS.id:
        return Owner("", may_take_over)
    if len(principal.id.encode()) > _LONGEST:
        return Owner(f"sha256:{_digest(principal.id)}", may_take_over)
    return Owner(principal.id, may_take_over)


def session_of(principal: Principal, session_id: str) -> str:
    """Return the session that a principal means by an ID, as it is stored and compared.

    The same ID means another session if another principal sends it. The ID cannot be learned from the result, which may
    be stored where others read.
    """
    return _digest(f"{principal.id}\0{session_id}")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_DIGITS]
