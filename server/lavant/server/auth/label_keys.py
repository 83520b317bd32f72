"""Keys of labels: how many a tenant may use, as each is a part of the index that lists are read from."""

from collections.abc import Collection, Iterable

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason

DEFAULT_LABEL_KEYS = 1_000
_INTERVAL = 5.0  # seconds between two readings of keys
_MOST_TENANTS = 10_000  # whose keys are remembered

_log = structlog.get_logger(__name__)


class LabelKeys(Periodic):
    """The keys that the labels of each tenant's runs have, and their bound, from `async with` to its end.

    A tenant's keys are read from the store after its first run with labels, and again every five seconds while it adds
    or is refused some. In between, several servers of one store may together exceed the bound.
    """

    def __init__(self, engine: Engine, clock: Clock, most: int = DEFAULT_LABEL_KEYS) -> None:
        super().__init__(clock, _INTERVAL)
        self._engine = engine
        self._most = most
        self._keys: dict[str, set[str]] = {}  # by tenant
        self._added: dict[str, set[str]] = {}  # since a tenant's keys were read: they may not be stored yet
        self._changed: set[str] = set()  # tenants

    def check(self, tenant: str, keys: Iterable[str]) -> Collection[str]:
        """Return the keys of a run that are new, and are to be counted if it is created. Raises QUOTA_EXCEEDED."""
        known = self._keys.get(tenant)
        if known is None:
            if len(self._keys) >= _MOST_TENANTS:
                del self._keys[next(iter(self._keys))]
            known = self._keys[tenant] = set()
            self._changed.add(tenant)
            self.trigger()
        if new := set(keys) - known:
            self._changed.add(tenant)
            if len(known) + len(new) > self._most:
                raise self._exceeded(tenant, min(new))
        return new

    def count(self, tenant: str, new: Collection[str]) -> None:
        """Count the new keys of a run that is about to be created."""
        if new:
            self._keys.setdefault(tenant, set()).update(new)
            self._added.setdefault(tenant, set()).update(new)

    async def run_once(self) -> None:
        """Read the keys of the tenants that have added some, or were refused."""
        changed, self._changed = self._changed, set()
        for tenant in changed & self._keys.keys():
            added = self._added.pop(tenant, set())
            try:
                stored = await self._engine.label_keys(tenant, self._most)
            except ServiceError as error:
                _log.debug("label_keys_not_read", tenant=tenant, error=error.message)
                self._changed.add(tenant)
                self._added.setdefault(tenant, set()).update(added)
            except Exception:
                _log.exception("label_keys_not_read", tenant=tenant)
            else:
                self._keys[tenant] = {*stored, *added, *self._added.get(tenant, ())}
                if added:  # read again without those
                    self._changed.add(tenant)

    def _exceeded(self, tenant: str, key: str) -> ServiceError:
        return ServiceError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            f"labels have {self._most:,} different keys, the most that tenant {tenant} may use, "
            f"and {key!r} is another one; use a key that other runs have, and put what differs from run to run in the "
            "value",
            metadata={"kind": "label_keys", "limit": str(self._most)},
            resource=f"tenant/{tenant}",
        )
