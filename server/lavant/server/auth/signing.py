"""Signatures of texts that clients send back: every replica verifies them by itself."""

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

MAX_TEXT_LENGTH = 512
_DIGEST_LENGTH = 32


class BadSignatureError(Exception):
    """The text was not issued with any of the keys, or was changed."""


class Signer:
    """Signs short payloads with HMAC-SHA256 (RFC 2104) and a key that can be rotated.

    New texts are signed with the first key; all keys verify. A key id is 1 to 16 ASCII characters.
    Texts are URL-safe base64 without padding, of at most `max_length` characters.
    """

    def __init__(self, keys: Mapping[str, bytes], max_length: int = MAX_TEXT_LENGTH) -> None:
        self._max_length = max_length
        self._derived: list[tuple[str, Signer]] = []
        self.generation = 0  # grows when the keys are replaced
        self.replace_keys(keys)

    def replace_keys(self, keys: Mapping[str, bytes]) -> None:
        """Use other keys from now on."""
        self._keys = {key_id.encode("ascii"): key for key_id, key in keys.items()}
        key_id, key = next(iter(self._keys.items()))
        self._hmac = hmac.new(key, digestmod="sha256")  # a copy of it costs half of a new one
        self._prefix = bytes((len(key_id),)) + key_id
        self.generation += 1
        for purpose, signer in self._derived:
            signer.replace_keys(self._keys_for(purpose))

    def for_purpose(self, purpose: str, max_length: int) -> "Signer":
        """Return a signer whose texts no other one verifies: it has keys of its own, derived from the same ones."""
        signer = Signer(self._keys_for(purpose), max_length)
        self._derived.append((purpose, signer))
        return signer

    def _keys_for(self, purpose: str) -> dict[str, bytes]:
        return {
            key_id.decode("ascii"): hmac.digest(key, f"lavant {purpose}".encode(), "sha256")
            for key_id, key in self._keys.items()
        }

    def sign(self, payload: bytes) -> bytes:
        """Return the signed text of a payload of at most 300 bytes, or as many as fit the length of a text."""
        body = self._prefix + payload
        signature = self._hmac.copy()
        signature.update(body)
        return urlsafe_b64encode(body + signature.digest()).rstrip(b"=")

    def verify(self, text: str) -> bytes:
        """Return the payload of a signed text, or raise BadSignatureError."""
        signed = _decode(text, self._max_length)
        body, digest = signed[:-_DIGEST_LENGTH], signed[-_DIGEST_LENGTH:]
        if not body:
            raise BadSignatureError
        payload_start = 1 + body[0]
        key = self._keys.get(body[1:payload_start])
        if key is None or not hmac.compare_digest(hmac.digest(key, body, "sha256"), digest):
            raise BadSignatureError
        return body[payload_start:]


def _decode(text: str, max_length: int) -> bytes:
    if len(text) > max_length or not text.isascii():
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
