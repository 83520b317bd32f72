"""Page and watch tokens of lists of runs: signed positions that no other tenant or list can use."""

from enum import Enum

from lavant.server.errors import invalid_field
from lavant.server.streaming.signing import BadSignatureError, Signer

_LEAST_SIZE = 8  # bytes; a position may have more


class Listing(Enum):
    """What a cursor walks along."""

    RUNS = b"r"
    CHANGES = b"c"
    SCORES = b"s"
    RULES = b"u"


class Cursors:
    """Issues and reads positions in a tenant's lists."""

    def __init__(self, signer: Signer, store_epoch: str) -> None:
        self._signer = signer
        self._epoch = store_epoch.encode()

    def issue(self, listing: Listing, tenant: str, position: int) -> str:
        """The token of a position."""
        return self._signer.sign(self._prefix(listing, tenant) + _pack(position)).decode()

    def read(self, listing: Listing, tenant: str, token: str, path: str) -> int:
        """Take a token back, or raise INVALID_FIELD naming the request's field."""
        prefix = self._prefix(listing, tenant)
        try:
            payload = self._signer.verify(token)
        except BadSignatureError:
            payload = b""
        if not payload.startswith(prefix) or len(payload) < len(prefix) + _LEAST_SIZE:
            raise invalid_field(path, "was not issued by this list; leave it empty to begin anew")
        return int.from_bytes(payload[len(prefix) :], "little", signed=True)

    def _prefix(self, listing: Listing, tenant: str) -> bytes:
        return b"".join((listing.value, self._epoch, b"\0", tenant.encode(), b"\0"))


def _pack(position: int) -> bytes:
    return position.to_bytes(max(_LEAST_SIZE, position.bit_length() // 8 + 1), "little", signed=True)
