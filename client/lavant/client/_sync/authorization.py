# Generated from _async/authorization.py by client/unasync.py: change that file instead.
"""Credentials that are sent with each call: a fixed key, or tokens that are obtained as needed."""

import time

from lavant.client._sync.calls import Metadata, SentMetadata
from lavant.client._sync.concurrency import SingleFlight, TokenSource, monotonic, obtain
from lavant.client._wire.security import Secret, expiry_of
from lavant.client.errors import LavantError, Unauthenticated, Unavailable

_MARGIN = 30.0  # seconds before its expiry at which a token is replaced, or a fifth of its time if that is less


class Authorization:
    """Metadata with the credential of a client.

    A token is obtained from `source` before the first call, shortly before its expiry if it is a JWT, and once after
    the server has refused it: a refused token that was obtained for that reason is an error.
    """

    def __init__(self, api_key: str | None = None, source: TokenSource | None = None) -> None:
        self._source = source
        self._flight = SingleFlight()
        self._is_valid = api_key is not None or source is None
        self._metadata: SentMetadata = () if api_key is None else bearer(api_key)
        self._renew_at = self._expires_at = float("inf")  # by the monotonic clock
        self._replaces_refused = False
        self._may_retry = False

    def metadata(self) -> SentMetadata:
        """Return the metadata for a call. Raises Unavailable if no token can be obtained at the moment."""
        if not self._is_current():
            self._flight.run(self._renew)
        return self._metadata

    def accepted(self, sent: SentMetadata) -> None:
        """Note that the server has accepted a call with this metadata."""
        if self._replaces_refused and self._is_valid and self._is_latest(sent):
            self._replaces_refused = False

    def explain(self, error: LavantError, sent: SentMetadata) -> LavantError:
        """Return the error of a call with this metadata: one that asks for a retry if another token may help."""
        if self._source is None or not isinstance(error, Unauthenticated):
            return error
        if not self._is_latest(sent):
            return _retried(error)
        if self._is_valid:
            self._may_retry = not self._replaces_refused
            self._is_valid, self._replaces_refused = False, True
        return _retried(error) if self._may_retry else error

    def _is_latest(self, sent: SentMetadata) -> bool:
        return sent[: len(self._metadata)] == self._metadata

    def _is_current(self) -> bool:
        return self._is_valid and monotonic() < self._renew_at

    def _renew(self) -> None:
        if self._source is None or self._is_current():  # since, by another thread
            return
        try:
            text = obtain(self._source)
        except Exception as error:
            if self._is_valid and monotonic() < self._expires_at:
                return  # the next call tries again
            # Not its text, which may hold secrets.
            raise Unavailable(f"token() raised {type(error).__name__}: no token, so no call") from error
        check_credential("what token() returns", text)
        self._metadata = bearer(text)
        self._renew_at, self._expires_at = _times(text)
        self._is_valid = True


def credential_names(api_key: str | None, source: TokenSource | None, metadata: Metadata) -> list[str]:
    """Return the names of a client's credentials. Raises ValueError or TypeError if they cannot work."""
    if source is not None and not callable(source):
        raise TypeError("token must be a function that returns a token; pass a fixed credential as api_key")
    given = {
        "api_key": api_key is not None,
        "token": source is not None,
        "metadata 'authorization'": any(key == "authorization" for key, _ in metadata),
    }
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise ValueError(f"a call has one credential: pass one of {' and '.join(names)}")
    if api_key is not None:
        check_credential("api_key", api_key)
    return names


def check_credential(name: str, text: str) -> None:
    """Raise TypeError or ValueError, without the text, unless it can be sent as a credential."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be text, not {type(text).__name__}")
    if not text or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(f"{name} must be printable ASCII: no spaces, line breaks or other control characters")


def bearer(credential: str) -> SentMetadata:
    """Return the metadata with a credential."""
    return (("authorization", Secret(f"Bearer {credential}")),)


def _times(token: str) -> tuple[float, float]:
    """Return when to renew a token and when it expires, by the monotonic clock; infinity where it does not say."""
    expiry = expiry_of(token)
    left = 0.0 if expiry is None else expiry - time.time()
    if left <= 0:  # A token that has expired by this machine's clock may be good: the server decides.
        return float("inf"), float("inf")
    return monotonic() + left - min(_MARGIN, left / 5), monotonic() + left


def _retried(error: LavantError) -> LavantError:
    return Unavailable(f"the server refused the token, and another one is requested: {error.message}")
