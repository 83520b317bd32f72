"""Registry of the tenants of a store."""

from types import TracebackType
from typing import Self

import structlog

from lavant.server.clock import Clock, Periodic, Timer
from lavant.server.errors import ServiceError
from lavant.server.model import SERVER_TENANT, callers_tenant
from lavant.server.store.port import Engine, Watch

_INTERVAL = 60.0  # seconds between two looks for tenants that have gone
_RETRY_DELAY = 1.0  # seconds

_log = structlog.get_logger(__name__)


class Tenants(Periodic):
    """The tenants of a store, as far as this server knows them, from `async with` to its end.

    A tenant comes with its first run, whichever replica creates it, and is there from the start in a store that was
    restored or copied. It goes a minute after its last run, at the earliest.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._names: set[str] = set()  # with those of the server's own
        self._changed: set[str] = set()  # since the last look began
        self._watch: Watch | None = None
        self._retry: Timer | None = None

    async def __aenter__(self) -> Self:
        self._watch = self._engine.watch_tenants(self._on_change)
        await self.run_once()
        return await super().__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._retry is not None:
            self._retry.cancel()
        if self._watch is not None:
            self._watch.close()

    def names(self) -> list[str]:
        """Return the tenants of callers."""
        return sorted({callers_tenant(name) for name in self._names} - {SERVER_TENANT})

    def having(self, part: str) -> list[str]:
        """Return the tenants of callers beside which the server keeps something: see `model.beside`."""
        suffix = f"/{part}"
        return sorted({callers_tenant(name) for name in self._names if name.endswith(suffix)} - {SERVER_TENANT})

    async def run_once(self) -> None:
        """List the tenants, and forget those that have gone."""
        self._changed.clear()
        try:
            found = await self._engine.list_tenants()
        except ServiceError as error:
            _log.debug("tenants_not_listed", error=error.message)
        except Exception:
            _log.exception("tenants_not_listed")
        else:
            self._names = {*found, *self._changed}
            return
        self._retry = self._clock.call_at(self._clock.monotonic() + _RETRY_DELAY, self.trigger)

    def _on_change(self, tenant: str) -> None:
        self._names.add(tenant)
        self._changed.add(tenant)
