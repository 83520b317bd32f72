"""Register of long-lived calls: their number is bounded, and a draining server asks them to end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from lavant.server.auth.client_authorities import CERTIFICATE
from lavant.server.auth.principal import ANONYMOUS, CALLER, Principal, unauthenticated
from lavant.server.auth.quotas import Quota, Quotas
from lavant.server.clock import Clock, Timer
from lavant.server.errors import ServiceError, unavailable
from lavant.server.streaming.peers import PeerLimit

_EXPIRY_GRACE = 1.0  # seconds for a call to end by itself once its credential has expired


class Caller(Protocol):
    """Caller of an RPC, over gRPC or HTTP."""

    @property
    def principal(self) -> Principal:
        """Principal that the credentials of the call name."""

    @property
    def tenant(self) -> str:
        """Tenant of the principal, whose runs the caller may see."""

    @property
    def peer(self) -> str:
        """Address of the peer, which other callers may share."""

    @property
    def write(self) -> Callable[[bytes], Awaitable[None]]:
        """Function that sends one message of a stream and returns once flow control has accepted it."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the call's deadline, or None without one."""


class OpenCall:
    """An open call: how it is asked to end, who makes it, and the error that ended it."""

    def __init__(self, calls: "Calls", on_drain: Callable[[], None], credential_id: str) -> None:
        self._calls = calls
        self.is_stalled = False
        self.on_drain = on_drain
        self.credential_id = credential_id
        self.certificate = CERTIFICATE.get()
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self._error: ServiceError | None = None

    def stall(self) -> None:
        """Note that the reader does not read: the call counts until it has gone, but a drain does not wait for it."""
        if not self.is_stalled:
            self.is_stalled = True
            self._calls.do_not_await()

    def end(self, error: ServiceError) -> None:
        """Cancel the call wherever it is, so that it fails with an error."""
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    def error(self) -> ServiceError | None:
        """Return the error that the call fails with; None if it was cancelled for another reason as well."""
        if self._error is None or self._task is None or self._task.uncancel() > self._cancelling:
            return None
        return self._error


class Calls:
    """Register of long-lived calls.

    `grpc.aio.Server.stop` does not wait for handlers to clean up; this does.
    """

    def __init__(self, limit: int, clock: Clock, peer_share: float = 1, quotas: Quotas | None = None) -> None:
        self._limit = PeerLimit(limit, peer_share, "streams", "streams are open")
        self._quotas = quotas
        self._clock = clock
        self._open: set[OpenCall] = set()
        self._revoked: set[str] = set()
        self._awaited = 0
        self._none_open = asyncio.Event()
        self._none_open.set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def entered(self, on_drain: Callable[[], None], peer: str = "") -> Iterator["OpenCall"]:
        """Register a call of an address for the length of the block; `on_drain` asks it to end soon.

        Raises UNAVAILABLE when draining, QUOTA_EXCEEDED when there are too many calls, in all or of the address,
        UNAUTHENTICATED when the call's credential is revoked, before the block or during it.
        """
        if self.draining:
            raise unavailable("the server is shutting down; retry, or call another replica")
        principal = CALLER.get(ANONYMOUS)
        if principal.credential_id in self._revoked:
            raise _revoked(principal.credential_id)
        self._limit.enter(peer)
        entry = OpenCall(self, on_drain, principal.credential_id)
        self._open.add(entry)
        self._awaited += 1
        self._none_open.clear()
        expiry = self._end_once_expired(entry, principal.expires_ns)
        try:
            with self._counted():
                yield entry
        except asyncio.CancelledError:
            if (error := entry.error()) is not None:
                raise error from None
            raise
        finally:
            if expiry is not None:
                expiry.cancel()
            self._open.discard(entry)
            self._limit.leave(peer)
            if not entry.is_stalled:
                self.do_not_await()

    def _counted(self) -> AbstractContextManager[None]:
        if self._quotas is None:
            return nullcontext()
        return self._quotas.using(Quota.STREAMS, CALLER.get(ANONYMOUS))

    def drain(self) -> None:
        """Refuse new calls, and ask the open ones to end."""
        self.draining = True
        for entry in tuple(self._open):
            entry.on_drain()

    def revoke(self, credential_id: str) -> None:
        """End the open calls of a credential with UNAUTHENTICATED, and refuse those that were admitted with it."""
        self._revoked.add(credential_id)
        for entry in tuple(self._open):
            if entry.credential_id == credential_id:
                entry.end(_revoked(credential_id))

    def allow(self, credential_id: str) -> None:
        """Admit calls of a credential again that was revoked."""
        self._revoked.discard(credential_id)

    def end_refused(self, check: Callable[[bytes], None]) -> None:
        """End the open calls of certificates that a check raises an error for, with that error."""
        for entry in tuple(self._open):
            try:
                check(entry.certificate)
            except ServiceError as error:
                entry.end(error)

    def _end_once_expired(self, entry: OpenCall, expires_ns: int | None) -> Timer | None:
        """End a call shortly after its credential has expired, unless it has ended by itself, as calls do."""
        if expires_ns is None:
            return None
        left = max(0.0, (expires_ns - self._clock.time_ns()) / 1e9)
        return self._clock.call_at(self._clock.monotonic() + left + _EXPIRY_GRACE, lambda: entry.end(_expired()))

    async def ended(self) -> None:
        """Wait until no call is open but those whose readers do not read."""
        await self._none_open.wait()

    def do_not_await(self) -> None:
        """Note that a call has ended, or cannot end by itself."""
        self._awaited -= 1
        if not self._awaited:
            self._none_open.set()


def _expired() -> ServiceError:
    return unauthenticated("the credential has expired; use another one")


def _revoked(credential_id: str) -> ServiceError:
    return unauthenticated(f"the credential {credential_id} is revoked; use another one")
