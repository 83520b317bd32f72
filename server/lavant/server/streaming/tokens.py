"""Resume tokens: positions in a run, as text that clients keep and hand back."""

import struct
from typing import NamedTuple

from lavant.server.errors import LavantError
from lavant.server.model import RunKey
from lavant.server.streaming.signing import BadSignatureError, Signer
from lavant.v1.error_pb2 import ErrorReason

_VERSION = 1
_POSITION = struct.Struct("<qq16s")  # the run's create time, sequence, types


class Position(NamedTuple):
    """Where a stream continues: behind `sequence`.

    `types` has the bit of every EventType that the stream was asked for; 0: all.
    `created_ns` tells a run from a later one of the same id; 0: it did not exist yet.
    """

    sequence: int
    types: int
    created_ns: int

    def check(self, created_ns: int, last_sequence: int) -> None:
        """Raise RESUME_TOKEN_INVALID unless this is a position in the run created then, as long as this."""
        if self.created_ns not in (0, created_ns) or self.sequence > last_sequence:
            raise token_invalid("it is of an earlier run of this id")


class Bookmark:
    """Issues the tokens of one stream; `key` is the same for all whose tokens are alike."""

    __slots__ = ("_created_ns", "_prefix", "_signer", "_types", "key")

    def __init__(self, signer: Signer, prefix: bytes, types: int, created_ns: int) -> None:
        self._signer = signer
        self._prefix = prefix
        self._types = types.to_bytes(16, "little")
        self._created_ns = created_ns
        self.key = (prefix, types, created_ns)

    def at(self, sequence: int) -> bytes:
        """The token of a position."""
        return self._signer.sign(self._prefix + _POSITION.pack(self._created_ns, sequence, self._types))


class ResumeTokens:
    """Issues and reads resume tokens of one store.

    A token is valid for as long as the run exists, on every replica, for whoever may read the run. It
    is no credential: authorization is checked on every call, whatever the token says.
    """

    def __init__(self, signer: Signer, store_epoch: str) -> None:
        self._signer = signer
        self._epoch = store_epoch.encode()

    def bookmark(self, run: RunKey, types: int, created_ns: int) -> Bookmark:
        """Begin to issue tokens for a stream."""
        return Bookmark(self._signer, self._prefix(run), types, created_ns)

    def read(self, token: str, run: RunKey) -> Position:
        """Take a token back.

        Raises RESUME_TOKEN_INVALID if it is damaged, forged or of another run, PERMISSION_DENIED if it
        is another tenant's, STORE_EPOCH_CHANGED if it is of another life of the store.
        """
        try:
            payload = self._signer.verify(token)
        except BadSignatureError:
            raise token_invalid("it is damaged, or was not issued here") from None
        if payload[:1] != bytes((_VERSION,)):
            raise token_invalid("it has an unknown version")
        epoch, rest = _split(payload[1:])
        tenant, rest = _split(rest)
        run_id, position = _split(rest)
        if tenant != run.tenant.encode():
            raise LavantError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "the resume token is another tenant's")
        if epoch != self._epoch:
            raise LavantError(
                ErrorReason.ERROR_REASON_STORE_EPOCH_CHANGED,
                "the resume token is of another life of the store; begin anew",
            )
        if run_id != run.run_id.encode():
            raise token_invalid("it is of another run")
        created_ns, sequence, types = _POSITION.unpack(position)
        return Position(sequence, int.from_bytes(types, "little"), created_ns)

    def _prefix(self, run: RunKey) -> bytes:
        parts = (self._epoch, run.tenant.encode(), run.run_id.encode())
        return bytes((_VERSION,)) + b"".join(bytes((len(part),)) + part for part in parts)


def token_invalid(why: str) -> LavantError:
    """The resume token cannot be used."""
    return LavantError(
        ErrorReason.ERROR_REASON_RESUME_TOKEN_INVALID, f"the resume token cannot be used: {why}; begin anew"
    )


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = 1 + data[0]
    return data[1:end], data[end:]
