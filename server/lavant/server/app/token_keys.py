"""Keys of tokens: those of the settings, and those of the store, which change while the server runs."""

from collections.abc import Mapping

import structlog

from lavant.server.app.settings import Settings
from lavant.server.auth.signing import Signer
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError, StartError
from lavant.server.store.port import Engine
from lavant.server.store.token_keys import TokenKey, usable

_INTERVAL = 5.0  # seconds; several reads within the delay after which a new key signs
_log = structlog.get_logger(__name__)


class TokenKeys(Periodic):
    """Keeps the keys of a signer up to date within an `async with` block, so that a rotation needs no restart.

    The keys of the settings sign; those of the store verify in any case, until they expire. Raises StartError if
    there are none.
    """

    def __init__(self, settings: Settings, engine: Engine, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        configured = settings.token_keys.items()
        self._configured = {key_id: bytes.fromhex(key.get_secret_value()) for key_id, key in configured}
        self._engine = engine
        self._wall_clock = clock
        self._known = self._merge(engine.identity.keys)
        if not self._known:
            raise StartError(
                "the store was made without a key that signs tokens; set the keys that it was made with, with "
                "--token-keys-file, or create a key with `lavant store rotate-key`"
            )
        self.signer = Signer(self._known)
        if self._configured and engine.identity.keys:
            _log.info("store_holds_token_keys", hint="`lavant store rotate-key --remove` takes them out of the store")

    async def run_once(self) -> None:
        """Read the keys of the store again, and use them."""
        try:
            known = self._merge(await self._engine.token_keys())
        except ServiceError as error:
            _log.warning("token_keys_not_read", error=error.message)
            return
        if known and list(known.items()) != list(self._known.items()):
            self._known = known
            self.signer.replace_keys(known)
            _log.info("token_keys_changed", keys=list(known))

    def _merge(self, stored: tuple[TokenKey, ...]) -> Mapping[str, bytes]:
        return {**self._configured, **usable(stored, self._wall_clock.time_ns())}
