"""API keys: their text, their check, and the register of a store's keys."""

import hmac
import secrets
import string
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from types import TracebackType
from typing import NamedTuple, Self

import structlog

from lavant.internal.v1.access_token_pb2 import AccessToken
from lavant.server.auth.key_log import KeyLog
from lavant.server.auth.principal import Limits, Principal, Restriction, Scope, unauthenticated
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.store.port import Engine
from lavant.v1.access_service_pb2 import Key, KeyLimits
from lavant.v1.access_service_pb2 import Restriction as RestrictionMessage
from lavant.v1.error_pb2 import ErrorReason

KEY_PREFIX = "lvk_"
_INTERVAL = 2.0  # seconds between two reads of the log; a change is read at once where the store reports it
_ALPHABET = string.ascii_letters + string.digits  # a double click selects all of a key
_ID_LENGTH = 12
_SECRET_LENGTH = 43  # 256 random bits
_NOT_VALID = "the API key is not valid; create one with `lavant keys create`"

_log = structlog.get_logger(__name__)


class _Stored(NamedTuple):
    """A key as it is checked."""

    digest: bytes
    principal: Principal
    is_revoked: bool


_NOBODY = _Stored(bytes(32), Principal(tenant="", id="", scopes=frozenset()), is_revoked=True)


class Keys(Periodic):
    """The API keys of a store, from `async with` to its end.

    Keys that another server creates or revokes are known here within two seconds, and those that were known stay so
    while the store is out of reach. `on_revoked` is called with the ID of each key that is revoked.
    """

    def __init__(self, engine: Engine, clock: Clock, on_revoked: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._stored: dict[str, _Stored] = {}
        self._on_revoked = on_revoked
        self._keys = KeyLog(engine, clock, self._changed)

    async def __aenter__(self) -> Self:
        await self._keys.refresh()
        self._watch = self._engine.watch(self._keys.key, lambda _: self.trigger())
        return await super().__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.close()
        await super().__aexit__(exc_type, exc, traceback)

    async def run_once(self) -> None:
        """Read changes of other servers."""
        try:
            await self._keys.refresh()
        except ServiceError as error:
            _log.debug("keys_not_read", error=error.message)
        except Exception:
            _log.exception("keys_not_read")

    def authenticate(self, text: str) -> Principal:
        """Return the principal of a key, or raise UNAUTHENTICATED. Takes as long for an ID that does not exist."""
        key_id, _, _ = text.removeprefix(KEY_PREFIX).partition("_")
        stored = self._stored.get(key_id, _NOBODY)
        if not hmac.compare_digest(stored.digest, _digest(text)) or stored is _NOBODY:
            raise unauthenticated(_NOT_VALID)
        if stored.is_revoked:
            raise unauthenticated(f"the API key {key_id} is revoked; create another one")
        expires_ns = stored.principal.expires_ns
        if expires_ns is not None and expires_ns <= self._clock.time_ns():
            raise unauthenticated(f"the API key {key_id} has expired; create another one")
        return stored.principal

    async def create(self, key: Key, created_by: str) -> tuple[Key, str]:
        """Create a key from the fields of `key` that callers set; return it and its text."""
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        text = f"{KEY_PREFIX}{key_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))}"
        scopes = sorted(set(key.scopes))
        made = Key(name=key.name, tenant=key.tenant, scopes=scopes, key_id=key_id, created_by=created_by)
        if key.HasField("restriction"):
            made.restriction.CopyFrom(key.restriction)
        if key.HasField("limits"):
            made.limits.CopyFrom(key.limits)
        if key.HasField("expire_time"):
            made.expire_time.CopyFrom(key.expire_time)
        return await self._keys.create(made, _digest(text)), text

    async def revoke(self, key_id: str, tenant: str, revoked_by: str) -> Key:
        """Revoke a tenant's key and return it. Raises KEY_NOT_FOUND."""
        with suppress(ServiceError):  # the key may be one that another server has just created
            await self._keys.refresh()
        key = self._keys.keys.get(key_id)
        if key is None or key.tenant != tenant:
            raise ServiceError(
                ErrorReason.ERROR_REASON_KEY_NOT_FOUND,
                f"key {key_id} does not exist",
                metadata={"key_id": key_id},
                resource=key_id,
            )
        return await self._keys.revoke(key_id, revoked_by)

    def is_revoked(self, key_id: str) -> bool:
        """Return whether a key is known to be revoked."""
        return (stored := self._stored.get(key_id)) is not None and stored.is_revoked

    def all(self) -> Iterable[Key]:
        """Return all keys, the earliest first."""
        return self._keys.keys.values()

    def _changed(self, key: Key, digest: bytes) -> None:
        is_revoked = key.HasField("revoke_time")
        self._stored[key.key_id] = _Stored(digest, principal_of(key), is_revoked)
        if is_revoked:
            self._on_revoked(key.key_id)


def principal_of(key: Key) -> Principal:
    """Return the principal that a key stands for. Scopes that a newer server has granted are left out."""
    known = set(Scope)
    return Principal(
        tenant=key.tenant,
        id=f"key:{key.name}",
        scopes=frozenset(Scope(scope) for scope in key.scopes if scope in known),
        restriction=restriction_of(key.restriction) if key.HasField("restriction") else None,
        credential_id=key.key_id,
        limits=limits_of(key),
        expires_ns=key.expire_time.ToNanoseconds() if key.HasField("expire_time") else None,
    )


def restriction_of(message: RestrictionMessage) -> Restriction:
    """Return a restriction from its message."""
    return Restriction(
        run_ids=tuple(message.run_ids),
        names=tuple(message.names),
        labels=dict(message.labels),
        conversation_id=message.conversation_id,
    )


def limits_of(credential: Key | AccessToken) -> Limits | None:
    """Return the limits of a credential from its message. Kinds that a newer server has added are left out."""
    if not credential.HasField("limits"):
        return None
    return Limits(**{kind.name: limit for kind, limit in credential.limits.ListFields()})


def limits_message(limits: Limits | None) -> KeyLimits | None:
    """Return the message of a credential's limits."""
    if limits is None:
        return None
    return KeyLimits(**{kind: getattr(limits, kind) for kind in KeyLimits.DESCRIPTOR.fields_by_name})


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="replace")).digest()
