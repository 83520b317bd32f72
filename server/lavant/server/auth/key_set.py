"""Key set of an issuer of JWTs: read from a file or a URL, and read again as keys are rotated."""

import asyncio
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import StartError

if TYPE_CHECKING:
    import httpx

_log = structlog.get_logger(__name__)

_MAX_BYTES = 256 << 10
_MAX_KEYS = 100
_MIN_RSA_BITS = 2_048
_TIMEOUT = 10.0  # seconds for a whole answer
_TICK = 5.0  # seconds between checks of whether a read is due
_FILE_INTERVAL = 5.0
_URL_INTERVAL = 300.0
_RETRY = 15.0  # seconds until the next read after a failed one
_UNKNOWN_INTERVAL = 60.0  # least time between reads for tokens that name an unknown key
# The kinds and curves of keys that fit an algorithm: a key of another kind is never tried.
_KINDS = {"RS": ("RSA", None), "PS": ("RSA", None), "Ed": ("OKP", "Ed25519")}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class KeySet(Periodic):
    """Public keys of an issuer, for one algorithm, within an `async with` block.

    The keys of a URL are read every five minutes, those of a file every five seconds, and, once a minute at most, when
    a token names an unknown key. If a read fails, the last good keys stay. A file has to be readable at the start; a
    URL does not, as other credentials work without it.
    """

    def __init__(self, source: str, algorithm: str, clock: Clock) -> None:
        super().__init__(clock, _TICK)
        self._source = source
        self._algorithm = algorithm
        self._keys: Mapping[str | None, jwt.PyJWK] | None = None
        self._content = b""  # that the keys are from
        self._next_at = self._next_for_unknown_at = clock.monotonic()
        self._client: httpx.AsyncClient | None = None
        self._on_change: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        if is_url(self._source):
            import httpx  # takes 100 ms

            self._client = await asyncio.to_thread(httpx.AsyncClient, timeout=_TIMEOUT, follow_redirects=False)
            await self.run_once()
        else:
            try:
                await self._read()
            except (OSError, ValueError) as error:
                raise StartError(f"cannot read the keys of JWTs from {self._source}: {error}") from None
        return await super().__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._client is not None:
            await self._client.aclose()

    @property
    def is_known(self) -> bool:
        """Whether the keys were read at least once."""
        return self._keys is not None

    @property
    def is_reading(self) -> bool:
        """Whether the keys are being read."""
        return self._task is not None and not self._task.done()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back whenever the keys have changed."""
        self._on_change.append(callback)

    def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key with an ID, or the only key for a token that names none. An unknown ID makes a read due."""
        keys = self._keys or {}
        if key_id is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        if (key := keys.get(key_id)) is None:
            self._read_for_unknown()
        return key

    async def run_once(self) -> None:
        """Read the keys, and keep the last good ones if it fails."""
        now = self._clock.monotonic()
        try:
            await self._read()
        except Exception as error:  # whatever a foreign server answers, the last good keys stay
            self._next_at = now + _RETRY
            has_keys = self._keys is not None
            _log.error("jwt_keys_not_read", source=self._source, error=repr(error)[:300], last_good_kept=has_keys)

    def due(self) -> None:
        """Check whether a read is due, and again after the interval."""
        self._schedule()
        if self._clock.monotonic() >= self._next_at:
            self.trigger()

    def _read_for_unknown(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_for_unknown_at and not self.is_reading:
            self._next_for_unknown_at = now + _UNKNOWN_INTERVAL
            self.trigger()

    async def _read(self) -> None:
        """Read the keys. Raises OSError, ValueError, or an error of httpx."""
        began = self._clock.monotonic()
        content = await (asyncio.to_thread(_content_of, Path(self._source)) if self._client is None else self._fetch())
        interval = _FILE_INTERVAL if self._client is None else _URL_INTERVAL
        if content == self._content:
            self._next_at = began + interval
            return
        keys = await asyncio.to_thread(read_keys, content, self._algorithm)
        self._next_at, self._content = began + interval, content
        known = self._keys or {}
        if self._keys is None or _material(known) != _material(keys):
            self._keys = keys
            _log.info("jwt_keys_read", source=self._source, key_ids=sorted(str(key_id) for key_id in keys))
            for callback in self._on_change:
                callback()

    async def _fetch(self) -> bytes:
        assert self._client is not None  # noqa: S101
        content = b""
        async with asyncio.timeout(_TIMEOUT), self._client.stream("GET", self._source) as response:
            if response.status_code != 200:
                raise ValueError(f"the answer has status {response.status_code}, not 200")
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"the answer has more than {_MAX_BYTES:,} bytes")
        return content


def is_url(source: str) -> bool:
    """Return whether keys come from a URL, not from a file."""
    return source.startswith(("http://", "https://"))


def read_keys(content: bytes, algorithm: str) -> dict[str | None, jwt.PyJWK]:
    """Return the keys of a JSON Web Key Set (RFC 7517) that verify an algorithm, by their IDs.

    Keys of other algorithms, for encryption, or with a private part are skipped. Raises ValueError if none is left.
    """
    try:
        listed = json.loads(content)["keys"]
        entries = [entry for entry in listed if isinstance(entry, dict)]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError('is not a JSON Web Key Set: an object with a list "keys"') from None
    if len(entries) > _MAX_KEYS:
        raise ValueError(f"holds {len(entries):,} keys; at most {_MAX_KEYS} are supported")
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in entries:
        key = _key(entry, algorithm)
        if key is None:
            continue
        if key.key_id in keys:
            raise ValueError(f"holds two keys for {algorithm} with the ID {key.key_id!r}")
        keys[key.key_id] = key
    if not keys:
        raise ValueError(f"holds no public key for {algorithm}")
    return keys


def _key(entry: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    kind, curve = _KINDS.get(algorithm[:2], ("EC", _CURVES.get(algorithm)))
    operations = entry.get("key_ops")
    fits = (
        entry.get("kty") == kind
        and entry.get("alg", algorithm) == algorithm
        and entry.get("use", "sig") == "sig"
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        and isinstance(entry.get("kid", ""), str)
        and (curve is None or entry.get("crv") == curve)
        and "d" not in entry
    )
    if not fits:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short keys, which are refused below
            key = jwt.PyJWK(dict(entry), algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    short = isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS
    return None if short else key


def _material(keys: Mapping[str | None, jwt.PyJWK]) -> dict[str | None, Any]:
    return {key_id: key.key for key_id, key in keys.items()}


def _content_of(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"has more than {_MAX_BYTES:,} bytes")
    return content
