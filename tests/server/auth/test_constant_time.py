"""What a wrong secret is compared with: digests alone, in constant time, so that an answer's time says nothing of it.

A measurement of times would prove little on a busy machine; these tests observe the comparisons themselves.
"""

import hmac
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from lavant.server.app.settings import Settings
from lavant.server.app.stores import open_engine
from lavant.server.auth.keys import Keys
from lavant.server.auth.principal import ANONYMOUS, Principal, unauthenticated
from lavant.server.auth.principal_cache import PrincipalCache
from lavant.server.auth.signing import BadSignatureError, Signer
from lavant.server.errors import ServiceError
from lavant.server.metrics import ServerMetrics
from lavant.v1.access_service_pb2 import Key
from support.clock import ManualClock
from support.server import settings_for

Compared = list[tuple[bytes, bytes]]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    """All pairs that are compared in constant time."""
    found: Compared = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        found.append((one, other))
        return original(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return found


def changed(text: str, place: int) -> str:
    """Return a text with another character at a place."""
    return text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]


async def test_api_key_is_compared_once_by_its_digest_wherever_it_is_wrong(
    tmp_path: Path, clock: ManualClock, compared: Compared
) -> None:
    settings: Settings = settings_for(tmp_path)
    engine = await open_engine(settings, clock, ServerMetrics())
    try:
        async with Keys(engine, clock) as keys:
            made, text = await keys.create(Key(name="agent", tenant="acme", scopes=["runs:read"]), "test")
            assert keys.authenticate(text).tenant == "acme"
            stored = sha256(text.encode()).digest()
            assert compared == [(stored, stored)]
            secret = len(text) - len(text.rpartition("_")[2])
            wrong = [changed(text, place) for place in (secret, secret + 20, len(text) - 1)]
            wrong += [text[:-1], f"{text}a", text[:secret], text + "a" * 4_000]
            unknown = [changed(text, len("lvk_")), "lvk_", "lvk_x_y"]
            for one in [*wrong, *unknown]:
                compared.clear()
                with pytest.raises(ServiceError) as refused:
                    keys.authenticate(one)
                expected = bytes(32) if one in unknown else stored
                assert compared == [(expected, sha256(one.encode()).digest())], "one comparison, of digests"
                assert refused.value.message == "the API key is not valid; create one with `lavant keys create`"
                assert made.key_id not in refused.value.message
    finally:
        await engine.close()


def test_signature_is_compared_once_as_a_whole_wherever_it_is_wrong(compared: Compared) -> None:
    signer = Signer({"k": bytes(32)})
    text = signer.sign(b"payload").decode()
    signed = len(text) - 43  # characters of a SHA-256
    for place in (signed + 1, signed + 20, len(text) - 2):
        compared.clear()
        with pytest.raises(BadSignatureError):
            signer.verify(changed(text, place))
        assert [(len(one), len(other)) for one, other in compared] == [(32, 32)]


def test_verified_credentials_are_looked_up_by_digests(clock: ManualClock) -> None:
    looked_up: list[object] = []

    class Observed(dict[bytes, Principal]):
        """A dictionary that notes what it is asked for: a look-up compares keys until they differ."""

        def get(self, key: bytes, default: object = None) -> object:  # type: ignore[override]
            looked_up.append(key)
            return super().get(key, default)

    cache = PrincipalCache(clock)
    cache._principals = Observed()

    def verify(text: str, _: bytes) -> Principal:
        if text != "right":
            raise unauthenticated("not valid")
        return ANONYMOUS

    texts = ["right", "right", "righ", "wrong"]
    for text in texts:
        with suppress(ServiceError):
            cache.get(text, verify)
    assert looked_up == [sha256(text.encode()).digest() for text in texts]
    assert set(cache._principals) == {sha256(b"right").digest()}
