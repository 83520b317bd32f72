"""Access tokens: short-lived credentials to read some runs, verified without a look-up."""

import secrets
from collections.abc import Callable, Mapping

from lavant.internal.v1.access_token_pb2 import AccessToken
from lavant.server.auth.keys import limits_message, limits_of, restriction_of
from lavant.server.auth.principal import Principal, Restriction, Scope, unauthenticated
from lavant.server.auth.principal_cache import PrincipalCache
from lavant.server.auth.signing import BadSignatureError, Signer
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, invalid_field
from lavant.v1.access_service_pb2 import Restriction as RestrictionMessage
from lavant.v1.error_pb2 import ErrorReason

TOKEN_PREFIX = "lva_"  # noqa: S105
TOKEN_SCOPES = frozenset({Scope.RUNS_READ, Scope.SCORES_READ})
DEFAULT_TOKEN_AGE = 900.0  # seconds
_MAX_LENGTH = 2_048  # characters: a token is part of a URL
_PRINCIPAL = "token:"
_MAX_PRINCIPAL = 256


class AccessTokens:
    """Issues and verifies access tokens of one store, within its epoch.

    `is_revoked` says of a credential whether it is known to be revoked: its tokens are revoked with it.
    """

    def __init__(self, signer: Signer, store_epoch: str, clock: Clock, is_revoked: Callable[[str], bool]) -> None:
        self._signer = signer.for_purpose("access token 1", _MAX_LENGTH)
        self._epoch = store_epoch
        self._clock = clock
        self._is_revoked = is_revoked
        self._verified = PrincipalCache(clock)
        self._generation = self._signer.generation

    def issue(
        self, minter: Principal, *, name: str, scopes: frozenset[Scope], wanted: Restriction, seconds: float
    ) -> tuple[str, int]:
        """Return a token for some runs of the minter's, and the wall time at which it expires.

        It expires no later than the minter's credential. Raises PERMISSION_DENIED for what the minter may not do.
        """
        if minter.id.startswith(_PRINCIPAL):
            raise _denied("an access token cannot create another one; use an API key or a JWT")
        for scope in sorted(scopes):
            minter.require(scope)
        expires_ns = self._clock.time_ns() + round(seconds * 1e9)
        if minter.expires_ns is not None:
            expires_ns = min(expires_ns, minter.expires_ns)
        token = AccessToken(
            tenant=minter.tenant,
            principal=f"{_PRINCIPAL}{minter.id}/{name or secrets.token_hex(8)}",
            credential_id=minter.credential_id,
            scopes=sorted(scopes),
            restriction=_message(narrowed(minter.restriction, wanted)),
            store_epoch=self._epoch,
            limits=limits_message(minter.limits),
            limited_as=minter.limited_as,
        )
        if len(token.principal) > _MAX_PRINCIPAL:
            raise invalid_field("name", f"is too long after the name of the caller, {minter.id}")
        token.expire_time.FromNanoseconds(expires_ns)
        text = TOKEN_PREFIX + self._signer.sign(token.SerializeToString()).decode()
        if len(text) > _MAX_LENGTH:
            raise invalid_field(
                "restriction", f"makes a token of {len(text):,} characters; at most {_MAX_LENGTH:,} fit in a URL"
            )
        return text, expires_ns

    def authenticate(self, text: str) -> Principal:
        """Return the principal of a token, or raise UNAUTHENTICATED."""
        if self._generation != self._signer.generation:  # a key may be gone, and all that it signed with it
            self._generation = self._signer.generation
            self._verified.clear()
        principal = self._verified.get(text, self._verify)
        if self._is_revoked(principal.credential_id):
            raise unauthenticated("the credential that created the access token is revoked; use another one")
        return principal

    def _verify(self, text: str, _: bytes) -> Principal:
        try:
            token = AccessToken.FromString(self._signer.verify(text.removeprefix(TOKEN_PREFIX)))
        except BadSignatureError:
            raise unauthenticated("the access token is not valid; create another one") from None
        expires_ns = token.expire_time.ToNanoseconds()
        if expires_ns <= self._clock.time_ns():
            raise unauthenticated("the access token has expired; create another one")
        if token.store_epoch != self._epoch:
            raise unauthenticated("the access token is of a store that was restored or replaced; create another one")
        return Principal(
            tenant=token.tenant,
            id=token.principal,
            scopes=frozenset(Scope(scope) for scope in token.scopes) & TOKEN_SCOPES,
            restriction=restriction_of(token.restriction),
            credential_id=token.credential_id,
            limits=limits_of(token),
            limited_as=token.limited_as,
            expires_ns=expires_ns,
        )


def narrowed(own: Restriction | None, wanted: Restriction) -> Restriction:
    """Return the restriction to runs that match both, of which `wanted` must lie within `own`.

    What `wanted` leaves open is as in `own`. Raises PERMISSION_DENIED if `wanted` names what `own` excludes.
    """
    if own is None:
        return wanted
    if own.run_ids and not set(wanted.run_ids) <= set(own.run_ids):
        raise _beyond("run_ids")
    if own.names and not all(any(_is_within(name, pattern) for pattern in own.names) for name in wanted.names):
        raise _beyond("names")
    if own.conversation_id and wanted.conversation_id not in ("", own.conversation_id):
        raise _beyond("conversation_id")
    if any(own.labels.get(key, value) != value for key, value in wanted.labels.items()):
        raise _beyond("labels")
    labels: Mapping[str, str] = {**own.labels, **wanted.labels}
    return Restriction(
        run_ids=wanted.run_ids or own.run_ids,
        names=wanted.names or own.names,
        labels=labels,
        conversation_id=wanted.conversation_id or own.conversation_id,
    )


def _is_within(name: str, pattern: str) -> bool:
    """Return whether all names that match a name or pattern match a pattern."""
    if not pattern.endswith("*"):
        return name == pattern
    return name.removesuffix("*").startswith(pattern.removesuffix("*"))


def _message(restriction: Restriction) -> RestrictionMessage:
    return RestrictionMessage(
        run_ids=restriction.run_ids,
        names=restriction.names,
        labels=restriction.labels,
        conversation_id=restriction.conversation_id,
    )


def _beyond(field: str) -> ServiceError:
    return _denied(f"restriction.{field}: names runs that the caller's credential is not for")


def _denied(message: str) -> ServiceError:
    return ServiceError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, message)
