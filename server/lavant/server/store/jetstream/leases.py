"""The consumers' places, given out by all replicas together: each is a message that expires by itself."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from nats.aio.msg import Msg

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, unavailable
from lavant.server.model import ConsumerKey
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Conflict, Message, Messages
from lavant.server.store.leases import LEASE_TTL, decide
from lavant.server.store.port import Claim, Lease

_TRY_LIMIT = 5.0  # seconds
_PAUSE = 0.05  # seconds before a try after an unknown outcome
_FREE = b""
_FREE_TTL = 1.0  # the least that JetStream takes

logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """A place that a stream of this replica holds, and the message that says so."""

    lease: Lease
    token: str
    sequence: int
    on_lost: Callable[[], None]


class _Found(NamedTuple):
    """What is known of a place: who has it, on which replica; no lease: nobody. `token` names its acquisition."""

    sequence: int
    lease: Lease | None = None
    replica: str = ""
    token: str = ""


class JetStreamLeases:
    """Leases as messages with a time to live, taken and renewed by compare-and-swap.

    The fence is the sequence of the message by which a lease was taken: it grows for ever, restarts included. Only
    JetStream's clock decides when a lease of another replica has ended; what is told of it before that is an estimate.
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

    async def open(self) -> None:
        """Begin to hear of places that were lost to other replicas."""
        await self._connection.listen(self._location.lost(self._replica), self._told)

    async def acquire(self, key: ConsumerKey, claim: Claim, on_lost: Callable[[], None]) -> Lease:
        """Get the place, or raise CONSUMER_BUSY or STALE_ATTEMPT; who had it is told at once."""
        token = secrets.token_hex(8)
        found = self._known(key)
        certain = False
        give_up_at = self._give_up_at()
        while True:
            try:
                if found is None:
                    found, certain = await self._find(key), True
                now = self._clock.monotonic()
                if found.token != token:  # else an earlier try went through unseen
                    decide(found.lease, claim, now)
                lease = Lease(key=key, claim=claim, fence=0, valid_until=now + self._ttl)
                sequence = await self._publish(lease, token, found.sequence)
            except Conflict:
                found = None
            except Unanswered as error:
                found = None
                await self._pause(give_up_at, error)
            except LavantError:
                if certain:
                    raise
                found = None
            else:
                taken = replace(lease, fence=sequence)
                self._hold(_Held(taken, token, sequence, on_lost))
                if found.lease is not None and found.replica != self._replica:
                    await self._tell(found.lease, found.replica)
                return taken

    async def renew(self, lease: Lease) -> Lease | None:
        """Hold the place for longer; None: it is somebody else's.

        Raises UNAVAILABLE past its end: others may have come and gone, and readers have seen their fences.
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

    async def release(self, lease: Lease) -> None:
        """Give the place back, if it is still this lease's; where that fails, it expires."""
        expected: int | None = self._held.pop(lease.key).sequence if self._holds(lease) else None
        while expected is not None:
            try:
                await self._messages.publish(self._location.lease(lease.key), _FREE, expected, ttl=_FREE_TTL)
            except Conflict:  # with a renewal that was under way, or with somebody else
                found = await self._find_in_reach(lease.key)
                expected = found.sequence if found.lease is not None and found.lease.fence == lease.fence else None
            except Unanswered as error:
                raise unavailable("the store is out of reach") from error
            else:
                return

    def _known(self, key: ConsumerKey) -> _Found | None:
        """What this replica knows of a place that it holds; None: the leader is to be asked."""
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
        claim = Claim(session_id=stored["session"], attempt=stored["attempt"])
        fence = stored["fence"] or message.sequence
        lease = Lease(key=key, claim=claim, fence=fence, valid_until=self._clock.monotonic() + left)
        return _Found(message.sequence, lease, stored["replica"], stored["token"])

    async def _found_by(self, lease: Lease) -> int | None:
        """The message to renew a lease upon, after another one was not the last; None: somebody else has the place."""
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
            "session": lease.claim.session_id,
            "attempt": lease.claim.attempt,
            "fence": lease.fence,
            "token": token,
            "replica": self._replica,
        }
        subject = self._location.lease(lease.key)
        return await self._messages.publish(subject, json.dumps(written).encode(), expected, ttl=self._ttl)

    def _hold(self, held: _Held) -> None:
        """Note who holds a place, and tell the stream of this replica that has lost it."""
        key = held.lease.key
        before = self._held.get(key)
        if before is not None and before.sequence > held.sequence:
            held.on_lost()
            return
        self._held[key] = held
        if before is not None:
            before.on_lost()

    async def _tell(self, lost: Lease, replica: str) -> None:
        """Tell another replica that it has lost a place; its failing renewal is the backstop."""
        told = {"place": self._location.lease(lost.key), "fence": lost.fence}
        await self._connection.tell(self._location.lost(replica), json.dumps(told).encode())

    async def _told(self, message: Msg) -> None:
        told = json.loads(message.data)
        for key, held in tuple(self._held.items()):
            if held.lease.fence == told["fence"] and self._location.lease(key) == told["place"]:
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
        """Wait before the next try, or raise UNAVAILABLE when there were enough."""
        if asyncio.get_running_loop().time() >= give_up_at:
            raise unavailable("the store is out of reach") from error
        await asyncio.sleep(_PAUSE)
