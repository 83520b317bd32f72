"""Leases of consumers, shared by all replicas: each lease is a message that expires by itself."""

import asyncio
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from nats.aio.msg import Msg

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, unavailable
from lavant.server.model import ConsumerKey
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Conflict, Message, Messages
from lavant.server.store.leases import LEASE_TTL, decide
from lavant.server.store.ownership import Owner
from lavant.server.store.port import Holder, Lease

_TRY_LIMIT = 5.0  # seconds
_PAUSE = 0.05  # seconds before a try after an unknown outcome
_FREE = b""
_FREE_TTL = 1.0  # seconds; JetStream's minimum

logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """Lease that a stream of this replica holds, and the sequence of the message that stores it."""

    lease: Lease
    token: str
    sequence: int
    on_lost: Callable[[], None]


class _Found(NamedTuple):
    """Stored lease, and the replica of its holder; `lease` is None if free. `token` identifies its acquisition."""

    sequence: int
    lease: Lease | None = None
    replica: str = ""
    token: str = ""


class JetStreamLeases:
    """Leases as messages with a time to live, acquired and renewed by compare-and-swap.

    The fence is the sequence of the message by which a lease was acquired: it always grows, also over restarts. Only
    JetStream's clock decides when a lease of another replica expires; `valid_until` of such a lease is an estimate.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connection: Connection,
        messages: Messages,
        location: Location,
        ttl: float = LEASE_TTL,
    ) -> None:
        self._clock = clock
        self._connection = connection
        self._messages = messages
        self._location = location
        self._ttl = ttl
        self._replica = secrets.token_hex(8)
        self._held: dict[ConsumerKey, _Held] = {}
        self._acquiring: Counter[str] = Counter()  # by the lease's subject
        # A notice may overtake the answer to the message by which its lease was acquired: the highest fences so lost.
        self._lost_early: dict[str, int] = {}

    async def open(self) -> None:
        """Subscribe to notices of leases that this replica has lost to others."""
        await self._connection.listen(self._location.lost(self._replica), self._receive)

    async def acquire(self, key: ConsumerKey, holder: Holder, on_lost: Callable[[], None]) -> Lease:
        """Acquire a lease, or raise CONSUMER_BUSY or STALE_ATTEMPT. Notifies the previous holder at once."""
        place = self._location.lease(key)
        self._acquiring[place] += 1
        try:
            return await self._acquire_and_hold(key, holder, on_lost)
        finally:
            self._acquiring[place] -= 1
            if not self._acquiring[place]:
                del self._acquiring[place]
                self._lost_early.pop(place, None)

    async def _acquire_and_hold(self, key: ConsumerKey, holder: Holder, on_lost: Callable[[], None]) -> Lease:
        token = secrets.token_hex(8)
        lease, sequence, lost = await self._acquire(key, holder, token)
        taken = replace(lease, fence=sequence)
        self._hold(_Held(taken, token, sequence, on_lost))
        await self._notify(lost)
        return taken

    async def acquire_and_release(self, key: ConsumerKey, holder: Holder) -> int:
        """Acquire a lease and release it in one step; return its fence. Notifies the previous holder at once."""
        _, sequence, lost = await self._acquire(key, holder)
        if (place := self._location.lease(key)) in self._acquiring:
            self._lost_early[place] = max(sequence, self._lost_early.get(place, 0))
        before = self._held.get(key)
        if before is not None and before.sequence < sequence:
            del self._held[key]
            before.on_lost()
        await self._notify(lost)
        return sequence

    async def renew(self, lease: Lease) -> Lease | None:
        """Extend a lease; None if another holder has it.

        Raises UNAVAILABLE once it has expired: others may have held it since, and readers have seen their fences.
        """
        held = self._held.get(lease.key)
        if held is None or held.lease.fence != lease.fence:
            return None
        renewed = replace(lease, valid_until=self._clock.monotonic() + self._ttl)
        expected = held.sequence
        give_up_at = self._give_up_at()
        while True:
            try:
                sequence = await self._publish(renewed, held.token, expected)
            except Conflict:
                found = await self._found_by(lease)
                if found is None:
                    self._forget(lease)
                    return None
                expected = found
            except Unanswered as error:
                await self._pause(give_up_at, error)
            else:
                if not self._holds(lease):
                    return None
                self._held[lease.key] = _Held(renewed, held.token, sequence, held.on_lost)
                return renewed

    async def renew_all(
        self, leases: Sequence[Lease], answered: Callable[[int, Lease | BaseException | None], None]
    ) -> None:
        """Extend leases, each by a message of its own."""

        async def renew(index: int, lease: Lease) -> None:
            try:
                answered(index, await self.renew(lease))
            except Exception as error:
                answered(index, error)

        await asyncio.gather(*(renew(index, lease) for index, lease in enumerate(leases)))

    async def release(self, lease: Lease) -> None:
        """Release a lease, unless another holder has it; if that fails, it expires."""
        expected: int | None = self._held.pop(lease.key).sequence if self._holds(lease) else None
        while expected is not None:
            try:
                await self._free(lease.key, expected)
            except Conflict:  # with a concurrent renewal, or with another holder
                found = await self._find_in_reach(lease.key)
                expected = found.sequence if found.lease is not None and found.lease.fence == lease.fence else None
            except Unanswered as error:
                raise unavailable("the store is out of reach") from error
            else:
                return

    async def _acquire(
        self, key: ConsumerKey, holder: Holder, token: str | None = None
    ) -> tuple[Lease, int, _Found | None]:
        """Store a lease under `token`, or a free one without a token: acquired and released at once.

        Return the lease, the sequence of its message, and the lease that it displaced, if any.
        """
        found = self._known(key)
        certain = False
        displaced: tuple[str, ...] = ()
        lost: _Found | None = None
        give_up_at = self._give_up_at()
        while True:
            try:
                if found is None:
                    found, certain = await self._find(key), True
                now = self._clock.monotonic()
                if found.token != token:  # else an earlier try succeeded without an answer
                    displaced = decide(found.lease, holder, now)
                    lost = lost if found.lease is None else found
                lease = Lease(key=key, holder=holder, fence=0, valid_until=now + self._ttl, displaced=displaced)
                if token is None:
                    sequence = await self._free(key, found.sequence)
                else:
                    sequence = await self._publish(lease, token, found.sequence)
            except Conflict:
                found = None
            except Unanswered as error:
                found = None
                await self._pause(give_up_at, error)
            except ServiceError:
                if certain:
                    raise
                found = None
            else:
                return lease, sequence, lost

    async def _free(self, key: ConsumerKey, expected: int) -> int:
        return await self._messages.publish(self._location.lease(key), _FREE, expected, ttl=_FREE_TTL)

    def _known(self, key: ConsumerKey) -> _Found | None:
        """Return the lease if this replica holds it; None: it must be read from the leader."""
        held = self._held.get(key)
        return None if held is None else _Found(held.sequence, held.lease, self._replica, held.token)

    async def _find(self, key: ConsumerKey) -> _Found:
        message = await self._messages.last(self._location.lease_stream, self._location.lease(key))
        if message is None:
            return _Found(0)
        if message.data == _FREE:
            return _Found(message.sequence)
        known = self._known(key)
        return known if known and known.sequence == message.sequence else self._read(key, message)

    def _read(self, key: ConsumerKey, message: Message) -> _Found:
        stored = json.loads(message.data)
        age = (self._clock.time_ns() - message.time_ns) / 1e9
        left = min(max(self._ttl - age, 1.0), self._ttl)
        owner = Owner(stored.get("owner", ""))  # leases of an earlier version have none
        holder = Holder(session_id=stored["session"], attempt=stored["attempt"], owner=owner)
        fence = stored["fence"] or message.sequence
        valid_until = self._clock.monotonic() + left
        displaced = tuple(stored["displaced"])
        lease = Lease(key=key, holder=holder, fence=fence, valid_until=valid_until, displaced=displaced)
        return _Found(message.sequence, lease, stored["replica"], stored["token"])

    async def _found_by(self, lease: Lease) -> int | None:
        """Return the sequence of a lease's current message, after a conflict; None if another holder has the lease."""
        found = await self._find_in_reach(lease.key)
        if found.lease is None and self._holds(lease):
            raise unavailable("the hold on the place has expired; resume")
        return found.sequence if found.lease is not None and found.lease.fence == lease.fence else None

    async def _find_in_reach(self, key: ConsumerKey) -> _Found:
        try:
            return await self._find(key)
        except Unanswered as error:
            raise unavailable("the store is out of reach") from error

    async def _publish(self, lease: Lease, token: str, expected: int) -> int:
        written = {
            "session": lease.holder.session_id,
            "owner": lease.holder.owner.id,
            "attempt": lease.holder.attempt,
            "fence": lease.fence,
            "displaced": lease.displaced,
            "token": token,
            "replica": self._replica,
        }
        subject = self._location.lease(lease.key)
        return await self._messages.publish(subject, json.dumps(written).encode(), expected, ttl=self._ttl)

    def _hold(self, held: _Held) -> None:
        """Record the holder of a lease, and notify the stream of this replica that has lost it."""
        key = held.lease.key
        before = self._held.get(key)
        superseded = before is not None and before.sequence > held.sequence
        if superseded or held.lease.fence <= self._lost_early.get(self._location.lease(key), 0):
            held.on_lost()
            return
        self._held[key] = held
        if before is not None:
            before.on_lost()

    async def _notify(self, lost: _Found | None) -> None:
        """Notify another replica that it has lost a lease; its failing renewal is the backstop."""
        if lost is not None and lost.lease is not None and lost.replica != self._replica:
            notice = {"place": self._location.lease(lost.lease.key), "fence": lost.lease.fence}
            await self._connection.notify(self._location.lost(lost.replica), json.dumps(notice).encode())

    async def _receive(self, message: Msg) -> None:
        notice = json.loads(message.data)
        place, fence = notice["place"], notice["fence"]
        if place in self._acquiring:
            self._lost_early[place] = max(fence, self._lost_early.get(place, 0))
        for key, held in tuple(self._held.items()):
            if held.lease.fence == fence and self._location.lease(key) == place:
                del self._held[key]
                held.on_lost()

    def _holds(self, lease: Lease) -> bool:
        held = self._held.get(lease.key)
        return held is not None and held.lease.fence == lease.fence

    def _forget(self, lease: Lease) -> None:
        if self._holds(lease):
            del self._held[lease.key]

    def _give_up_at(self) -> float:
        return asyncio.get_running_loop().time() + _TRY_LIMIT

    async def _pause(self, give_up_at: float, error: Unanswered) -> None:
        """Wait before the next try, or raise UNAVAILABLE when the time for tries is over."""
        if asyncio.get_running_loop().time() >= give_up_at:
            raise unavailable("the store is out of reach") from error
        await asyncio.sleep(_PAUSE)
