"""Authentication: from the credentials of a call to its principal."""

from collections.abc import Callable
from typing import TypeAlias

from lavant.server.auth.access_tokens import TOKEN_PREFIX, AccessTokens
from lavant.server.auth.keys import KEY_PREFIX, Keys
from lavant.server.auth.principal import ANONYMOUS, Principal, unauthenticated

# From the value of `authorization`, None if there is none. Raises UNAUTHENTICATED.
Authenticate: TypeAlias = Callable[[str | None], Principal]

_SCHEME = "bearer "
_LONGEST = 8 << 10  # characters of a credential


def open_to_all(_: str | None) -> Principal:
    """Return the one principal of a server without credentials."""
    return ANONYMOUS


class Authentication:
    """Authenticates calls by the kinds of credentials that the server accepts, which differ in their form."""

    def __init__(
        self, keys: Keys | None, jwts: Callable[[str], Principal] | None = None, tokens: AccessTokens | None = None
    ) -> None:
        self._keys = keys
        self._jwts = jwts
        self._tokens = tokens

    def __call__(self, authorization: str | None) -> Principal:
        """Return the principal of a call, or raise UNAUTHENTICATED."""
        if authorization is None:
            raise unauthenticated("the call has no credentials; send `authorization: Bearer` with a credential")
        if authorization[: len(_SCHEME)].lower() != _SCHEME or len(authorization) > _LONGEST:
            raise unauthenticated("the credentials are not valid; send `authorization: Bearer` with a credential")
        text = authorization[len(_SCHEME) :].strip()
        if self._keys is not None and text.startswith(KEY_PREFIX):
            return self._keys.authenticate(text)
        if self._tokens is not None and text.startswith(TOKEN_PREFIX):
            return self._tokens.authenticate(text)
        if self._jwts is not None and text.count(".") == 2:
            return self._jwts(text)
        raise unauthenticated("the credential is of no kind that this server accepts")
