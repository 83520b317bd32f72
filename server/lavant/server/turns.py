"""Turns: who is served next where callers compete, by their tenants and then by their connections."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from contextvars import ContextVar
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from lavant.server.errors import unavailable

_Item = TypeVar("_Item", bound=Hashable)


class Origin(NamedTuple):
    """Tenant and connection that work is done for; both empty: the server itself."""

    tenant: str = ""
    connection: str = ""


_SERVER = Origin()
_origin: ContextVar[Origin] = ContextVar("origin", default=_SERVER)


def serve(origin: Origin) -> None:
    """Count what this task does from now on, and the tasks that it starts, as work for a caller."""
    _origin.set(origin)


class _Tenant:
    """Items of one tenant, by connection, and their number."""

    __slots__ = ("connections", "count")

    def __init__(self) -> None:
        self.connections: OrderedDict[str, OrderedDict[Hashable, None]] = OrderedDict()
        self.count = 0


class FairQueue(Generic[_Item]):
    """Queue from which tenants are served in turn, and within a tenant its connections; each in its own order.

    An item that is queued already is not moved.
    """

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._tenants)

    def count(self, tenant: str) -> int:
        """Return the number of a tenant's items."""
        found = self._tenants.get(tenant)
        return 0 if found is None else found.count

    def tenants(self) -> int:
        """Return the number of tenants that have items."""
        return len(self._tenants)

    def add(self, origin: Origin, item: _Item) -> None:
        """Add an item to those of its origin."""
        tenant = self._tenants.get(origin.tenant)
        if tenant is None:
            tenant = self._tenants[origin.tenant] = _Tenant()
        items = tenant.connections.setdefault(origin.connection, OrderedDict())
        if item not in items:
            items[item] = None
            tenant.count += 1

    def pop(self) -> _Item:
        """Remove and return the next item in turn. Raises KeyError if there is none."""
        name, tenant = next(iter(self._tenants.items()), ("", None))
        if tenant is None:
            raise KeyError("the queue is empty")
        connection, items = next(iter(tenant.connections.items()))
        item, _ = items.popitem(last=False)
        self._take(Origin(name, connection), tenant, items)
        return item  # type: ignore[return-value]  # all items are added by `add`

    def discard(self, origin: Origin, item: _Item) -> None:
        """Remove an item, if it is queued; the turns stay as they are."""
        tenant = self._tenants.get(origin.tenant)
        items = None if tenant is None else tenant.connections.get(origin.connection)
        if tenant is None or items is None or item not in items:
            return
        del items[item]
        tenant.count -= 1
        if not items:
            del tenant.connections[origin.connection]
        if not tenant.count:
            del self._tenants[origin.tenant]

    def _take(self, origin: Origin, tenant: _Tenant, rest: "OrderedDict[Hashable, None]") -> None:
        """End the turn of an origin: it is the last of its tenant now, and the tenant the last of all."""
        tenant.count -= 1
        if rest:
            tenant.connections.move_to_end(origin.connection)
        else:
            del tenant.connections[origin.connection]
        if tenant.count:
            self._tenants.move_to_end(origin.tenant)
        else:
            del self._tenants[origin.tenant]


class Turns:
    """Semaphore whose waiters are served in turn of their origins, used with `async with`.

    `capacity` is the number of holders at a time. `max_waiting` bounds the waiters of each tenant; None: no bound.
    """

    def __init__(self, capacity: int, *, max_waiting: int | None = None) -> None:
        self._free = capacity
        self._max_waiting = max_waiting
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    async def acquire(self, origin: Origin | None = None) -> None:
        """Wait for a turn; without an origin, for the one that this task serves.

        Raises UNAVAILABLE if too many of the tenant wait.
        """
        if self._free:  # then nobody waits
            self._free -= 1
            return
        origin = origin or _origin.get()
        waiting = self._waiting.count(origin.tenant)
        if self._max_waiting is not None and waiting >= self._max_waiting:
            raise unavailable(f"{waiting} queries wait for the store already; ask again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(origin, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.discard(origin, turn)
            if turn.done() and not turn.cancelled():  # it was this caller's turn at the same moment
                self.release()
            raise

    def release(self) -> None:
        """End a turn: the next waiter has it, if there is one."""
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
