"""Signed texts that clients keep and send back: resume tokens of streams, page tokens of lists."""

import re
import struct
from enum import Enum
from typing import NamedTuple

from lavant.server.auth.signing import BadSignatureError, Signer
from lavant.server.errors import ServiceError, invalid_field
from lavant.server.model import RunKey, callers_tenant
from lavant.v1.error_pb2 import ErrorReason

_VERSION = 1
_POSITION = struct.Struct("<qq16s")  # the run's create time, sequence, types
_SEQUENCE = re.compile("0|[1-9][0-9]{0,9}")
_MIN_PAGE_POSITION = 8  # bytes; a position may have more


class Listing(Enum):
    """The lists that have page tokens."""

    RUNS = b"r"
    CHANGES = b"c"
    SCORES = b"s"
    RULES = b"u"
    KEYS = b"k"


class Position(NamedTuple):
    """A position in a run: the stream continues after `sequence`.

    `types` has the bit of every EventType that the stream was asked for; 0: all.
    `created_ns` distinguishes a run from a later one with the same ID; 0: it did not exist yet.
    """

    sequence: int
    types: int
    created_ns: int

    def check(self, created_ns: int, last_sequence: int) -> None:
        """Raise RESUME_TOKEN_INVALID unless this is a position in the run that was created then, within its log."""
        if self.created_ns not in (0, created_ns) or self.sequence > last_sequence:
            raise token_invalid("it belongs to an earlier run with this ID")


class TokenIssuer:
    """Issues the tokens of one stream; `key` is the same for all whose tokens are alike."""

    __slots__ = ("_created_ns", "_last", "_prefix", "_signer", "_types", "key")

    def __init__(self, signer: Signer, prefix: bytes, types: int, created_ns: int) -> None:
        self._signer = signer
        self._prefix = prefix
        self._types = types.to_bytes(16, "little")
        self._created_ns = created_ns
        self._last = (-1, b"")
        self.key = (prefix, types, created_ns)

    def at(self, sequence: int) -> bytes:
        """Return the token of a position. The last one is kept: heartbeats and ends repeat it."""
        last, token = self._last
        if last != sequence:
            token = self._signer.sign(self._prefix + _POSITION.pack(self._created_ns, sequence, self._types))
            self._last = (sequence, token)
        return token

    def prefix(self) -> bytes:
        """Return what is a token too if the digits of a position follow it: one signature serves for many positions."""
        return self.at(0) + b"."


class ResumeTokens:
    """Issues and reads resume tokens of one store.

    A token is valid for as long as the run exists, on every replica, for whoever may read the run. It
    is no credential: authorization is checked on every call, whatever the token says.
    """

    def __init__(self, signer: Signer, store_epoch: str) -> None:
        self._signer = signer
        self._epoch = store_epoch.encode()

    def issuer(self, run: RunKey, types: int, created_ns: int) -> TokenIssuer:
        """Return the issuer of a stream's tokens."""
        return TokenIssuer(self._signer, self._prefix(run), types, created_ns)

    def read(self, token: str, run: RunKey) -> Position:
        """Return the position of a token.

        Raises RESUME_TOKEN_INVALID if it is damaged, forged or of another run, PERMISSION_DENIED if it
        is another tenant's, STORE_EPOCH_CHANGED if it is of another store epoch. The sequence after a dot is not
        signed: whoever changes it gets other events of a run that they may read from its start.
        """
        signed, dot, after = token.partition(".")
        if dot and _SEQUENCE.fullmatch(after) is None:
            raise token_invalid("it is damaged, or was not issued here")
        try:
            payload = self._signer.verify(signed)
        except BadSignatureError:
            raise token_invalid("it is damaged, or was not issued here") from None
        if payload[:1] != bytes((_VERSION,)):
            raise token_invalid("it has an unknown version")
        epoch, rest = _split(payload[1:])
        tenant, rest = _split(rest)
        run_id, position = _split(rest)
        named = tenant.decode()
        if callers_tenant(named) != callers_tenant(run.tenant):
            raise ServiceError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "the resume token belongs to another tenant")
        if epoch != self._epoch:
            raise ServiceError(
                ErrorReason.ERROR_REASON_STORE_EPOCH_CHANGED,
                "the resume token was issued before the store was restored or replaced; start without a token",
            )
        if (named, run_id) != (run.tenant, run.run_id.encode()):  # also a run's token for samples, and the reverse
            raise token_invalid("it belongs to another run")
        created_ns, sequence, types = _POSITION.unpack(position)
        return Position(sequence + int(after or 0), int.from_bytes(types, "little"), created_ns)

    def _prefix(self, run: RunKey) -> bytes:
        parts = (self._epoch, run.tenant.encode(), run.run_id.encode())
        return bytes((_VERSION,)) + b"".join(bytes((len(part),)) + part for part in parts)


class PageTokens:
    """Issues and reads positions in a tenant's lists."""

    def __init__(self, signer: Signer, store_epoch: str) -> None:
        self._signer = signer
        self._epoch = store_epoch.encode()

    def issue(self, listing: Listing, tenant: str, position: int | None) -> str:
        """Return the token of a position; empty for None, the end of a list."""
        if position is None:
            return ""
        return self._signer.sign(self._prefix(listing, tenant) + _pack(position)).decode()

    def read(self, listing: Listing, tenant: str, token: str, path: str) -> int | None:
        """Return the position of a token; None for an empty one, the start of a list.

        Raises INVALID_FIELD with the path of the request's field.
        """
        if not token:
            return None
        prefix = self._prefix(listing, tenant)
        try:
            payload = self._signer.verify(token)
        except BadSignatureError:
            payload = b""
        if not payload.startswith(prefix) or len(payload) < len(prefix) + _MIN_PAGE_POSITION:
            raise invalid_field(path, "was not issued by this list; leave it empty to start at the first page")
        return int.from_bytes(payload[len(prefix) :], "little", signed=True)

    def _prefix(self, listing: Listing, tenant: str) -> bytes:
        return b"".join((listing.value, self._epoch, b"\0", tenant.encode(), b"\0"))


def token_invalid(why: str) -> ServiceError:
    """Return the error for a resume token that cannot be used."""
    return ServiceError(
        ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID, f"the resume token cannot be used: {why}; start without a token"
    )


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = 1 + data[0]
    return data[1:end], data[end:]


def _pack(position: int) -> bytes:
    return position.to_bytes(max(_MIN_PAGE_POSITION, position.bit_length() // 8 + 1), "little", signed=True)
