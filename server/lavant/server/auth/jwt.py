"""JSON Web Tokens (RFC 7519): from a token of a trusted issuer to its principal."""

import binascii
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import structlog

from lavant.server.auth.key_set import KeySet
from lavant.server.auth.principal import Limits, Principal, Scope, is_tenant, unauthenticated
from lavant.server.auth.principal_cache import PrincipalCache
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, unavailable
from lavant.v1.error_pb2 import ErrorReason

_log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_MAX_BYTES = 8 << 10
_THREE_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_SUBJECT = 200
_MAX_ID = 64
_SKEW = 30  # seconds by which an issuer's clock may be ahead; a token is never accepted after its exp
_LATEST = 1 << 40  # seconds since 1970
_LOG_INTERVAL = 60.0  # seconds between two reports of the same refusal
_MAX_LOGGED = 100
# `require` and the checks of exp, nbf and iat follow here: PyJWT accepts times as text, and has a clock of its own.
_OPTIONS: Any = {"require": ["iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Claims that tokens must have, and those that name their tenant, scopes and limits.

    `tenants` and `scopes` translate the values of claims; empty: a value is the name itself. `limits` has those of each
    value; empty: tokens have no limits.
    """

    issuer: str
    audience: str
    tenant_claim: str = "tenant"
    scopes_claim: str = "scope"
    tenants: Mapping[str, str] = field(default_factory=dict)
    scopes: Mapping[str, Sequence[Scope]] = field(default_factory=dict)
    limits_claim: str = "limits"
    limits: Mapping[str, Limits] = field(default_factory=dict)


class TokenRefused(Exception):
    """A token is not valid; the text says why, to the server's log only."""


class JWTAuthentication:
    """Authentication by JWTs of one issuer, of one algorithm.

    A token that was verified is remembered until it expires or the keys change. It never waits: while the keys are
    being read for a token that names an unknown one, it is UNAVAILABLE.
    """

    def __init__(self, keys: KeySet, algorithm: str, claims: Claims, clock: Clock) -> None:
        self._keys = keys
        self._algorithm = algorithm
        self._claims = claims
        self._clock = clock
        self._verified = PrincipalCache(clock)
        self._logged: dict[str, float] = {}
        keys.on_change(self._verified.clear)

    def __call__(self, token: str) -> Principal:
        """Return the principal of a token. Raises UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE."""
        if len(token) > _MAX_BYTES:
            raise unauthenticated(f"the JWT is longer than {_MAX_BYTES:,} bytes")
        return self._verified.get(token, self._verify)

    def _verify(self, token: str, digest: bytes) -> Principal:
        try:
            if not is_jwt(token):
                raise TokenRefused("it is not made of three parts of URL-safe base64")
            header, claims = _object(token, 0), _object(token, 1)
            jwt.decode(
                token,
                self._key(header),
                algorithms=[self._algorithm],
                issuer=self._claims.issuer,
                audience=self._claims.audience,
                options=_OPTIONS,
            )
            return self._principal(claims, self._expiry(claims), digest)
        except (TokenRefused, jwt.PyJWTError, ValueError, TypeError) as error:
            self._report(str(error) if isinstance(error, TokenRefused) else f"{type(error).__name__}: {error}")
            raise unauthenticated("the JWT is not valid; the server's log says why") from None

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """Return the key that a token names among those of the settings: all else that a header says is ignored."""
        if header.get("alg") != self._algorithm:
            raise TokenRefused(f"its alg is {header.get('alg')!r}, not {self._algorithm!r}")
        if "crit" in header:
            raise TokenRefused("its header has critical extensions")
        key_id = header.get("kid")
        if key_id is not None and not isinstance(key_id, str):
            raise TokenRefused("its kid is not a string")
        key = self._keys.find(key_id)
        if key is not None:
            return key
        if not self._keys.is_known or self._keys.is_reading:
            raise unavailable("the keys of the issuer of JWTs are being read; retry")
        raise TokenRefused("it names no key" if key_id is None else f"its key {key_id!r} is unknown")

    def _expiry(self, claims: Mapping[str, Any]) -> int:
        now_ns = self._clock.time_ns()
        expires = claims.get("exp")
        if type(expires) is not int or not 0 < expires < _LATEST:
            raise TokenRefused("its exp is not an integer: the seconds since 1970")
        if now_ns >= expires * 1_000_000_000:
            raise _expired()
        for name in ("nbf", "iat"):
            if name in claims and not _is_time(claims[name]):
                raise TokenRefused(f"its {name} is not a number of seconds since 1970")
            if claims.get(name, 0) > now_ns / 1e9 + _SKEW:
                raise TokenRefused(f"its {name} lies ahead of this server's clock")
        return expires * 1_000_000_000

    def _principal(self, claims: Mapping[str, Any], expires_ns: int, digest: bytes) -> Principal:
        subject, token_id = claims.get("sub"), claims.get("jti")
        if not isinstance(subject, str) or not 1 <= len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise TokenRefused(f"its sub is not text of 1 to {_MAX_SUBJECT} printable characters")
        if not isinstance(token_id, str) or not 1 <= len(token_id) <= _MAX_ID or not token_id.isprintable():
            token_id = digest[:8].hex()
        return Principal(
            tenant=self._tenant(claims.get(self._claims.tenant_claim)),
            id=f"jwt:{subject}",
            scopes=self._scopes(claims.get(self._claims.scopes_claim)),
            credential_id=f"jwt:{token_id}",
            limits=self._limits(claims.get(self._claims.limits_claim)),
            limited_as=f"jwt:{subject}" if self._claims.limits else "",  # a subject gets as many tokens as it likes
            expires_ns=expires_ns,
        )

    def _tenant(self, value: object) -> str:
        names = self._claims.tenants
        tenant = None if not isinstance(value, str) else names.get(value) if names else value
        if tenant is None or not is_tenant(tenant):
            raise self._denied(f"the claim {self._claims.tenant_claim!r} names no known tenant: {_shown(value)}")
        return tenant

    def _scopes(self, value: object) -> frozenset[Scope]:
        """Return the scopes that a claim names, as a list or separated by spaces. Unknown names grant nothing."""
        listed = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        known = self._claims.scopes or {scope.value: (scope,) for scope in Scope}
        scopes = frozenset(scope for name in listed if isinstance(name, str) for scope in known.get(name, ()))
        if not scopes:
            raise self._denied(f"the claim {self._claims.scopes_claim!r} names no known scope: {_shown(value)}")
        return scopes

    def _limits(self, value: object) -> Limits | None:
        """Return the limits that a claim names. To be without any, a token needs a value that grants that."""
        known = self._claims.limits
        if not known:
            return None
        if not isinstance(value, str) or value not in known:
            raise self._denied(f"the claim {self._claims.limits_claim!r} names no known limits: {_shown(value)}")
        return known[value]

    def _denied(self, why: str) -> ServiceError:
        self._report(why)
        return ServiceError(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            "the JWT names no tenant, no scope or no limits that this server knows; the server's log says which",
        )

    def _report(self, why: str) -> None:
        """Log why a token was refused, each reason once a minute: refusals come as often as callers like."""
        now, why = self._clock.monotonic(), why[:300]
        if now < self._logged.get(why, now):
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged = {text: until for text, until in self._logged.items() if now < until}
            if len(self._logged) >= _MAX_LOGGED:
                return
        self._logged[why] = now + _LOG_INTERVAL
        _log.warning("jwt_refused", why=why)


def is_jwt(credential: str) -> bool:
    """Return whether a credential has the form of a JWT: three parts of URL-safe base64."""
    return _THREE_PARTS.fullmatch(credential) is not None


def _object(token: str, part: int) -> dict[str, Any]:
    """Return a part of a token. PyJWT itself accepts names that occur twice, of which parsers choose different ones."""
    encoded = token.split(".")[part]
    try:
        found = json.loads(
            urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), object_pairs_hook=_without_duplicates
        )
    except (binascii.Error, ValueError, RecursionError):
        raise TokenRefused("it is not made of JSON objects") from None
    if not isinstance(found, dict):
        raise TokenRefused("it is not made of JSON objects")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TokenRefused("it has a JSON object with the same name twice")
    return found


def _is_time(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < _LATEST  # type: ignore[operator]


def _shown(value: object) -> str:
    return repr(value)[:100]


def _expired() -> ServiceError:
    return unauthenticated("the JWT has expired; get a new one")
