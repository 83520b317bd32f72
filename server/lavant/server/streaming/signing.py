"""Text that the server hands out and takes back: signed, so that it comes back unchanged or not at all."""

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

MAX_TEXT_LENGTH = 512
_DIGEST_LENGTH = 32


class BadSignatureError(Exception):
    """The text was not issued with any of the keys, or was changed since."""


class Signer:
    """Signs short payloads with HMAC-SHA256 (RFC 2104) and a key that can be rotated.

    New texts are signed with the first key; all keys verify. A key id is 1 to 16 ASCII characters.
    Texts are URL-safe base64 without padding.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {key_id.encode("ascii"): key for key_id, key in keys.items()}
        self._key_id, self._key = next(iter(self._keys.items()))
        self._prefix = bytes((len(self._key_id),)) + self._key_id

    def sign(self, payload: bytes) -> bytes:
        """Wrap a payload of at most 300 bytes."""
        body = self._prefix + payload
        return urlsafe_b64encode(body + hmac.digest(self._key, body, "sha256")).rstrip(b"=")

    def verify(self, text: str) -> bytes:
        """Give back the payload, or raise BadSignatureError."""
        signed = _decode(text)
        body, digest = signed[:-_DIGEST_LENGTH], signed[-_DIGEST_LENGTH:]
        if not body:
            raise BadSignatureError
        payload_start = 1 + body[0]
        key = self._keys.get(body[1:payload_start])
        if key is None or not hmac.compare_digest(hmac.digest(key, body, "sha256"), digest):
            raise BadSignatureError
        return body[payload_start:]


def _decode(text: str) -> bytes:
    if len(text) > MAX_TEXT_LENGTH or not text.isascii():
        raise BadSignatureError
    encoded = text.encode("ascii")
    try:
        decoded = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error:
        raise BadSignatureError from None
    # base64 forgives foreign characters and stray bits at the end; a token must not.
    if urlsafe_b64encode(decoded).rstrip(b"=") != encoded:
        raise BadSignatureError
    return decoded
