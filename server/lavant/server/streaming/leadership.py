"""Leadership: the lease of what one of the servers that share a store does for all of them."""

import secrets

from lavant.server.errors import ServiceError
from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.port import Holder
from lavant.server.streaming.leases import ConsumerLeases, HeldLease
from lavant.v1.error_pb2 import ErrorReason


class Leadership:
    """The lease of one duty, named by a tenant of the server's own and a name: held by one server at a time."""

    def __init__(self, leases: ConsumerLeases, tenant: str, name: str) -> None:
        self._leases = leases
        self._key = ConsumerKey(RunKey(tenant, name), name)
        self._session_id = secrets.token_hex(16)
        self._attempt = 0
        self._lease: HeldLease | None = None

    async def acquire(self) -> bool:
        """Acquire the lease, or keep it; return False if another server holds it."""
        if self._lease is not None:
            if self._lease.is_usable:
                return True
            self._leases.start_release(self._lease)
            self._lease = None
        self._attempt += 1
        holder = Holder(session_id=self._session_id, attempt=self._attempt)
        try:
            self._lease = await self._leases.acquire(self._key, holder)
        except ServiceError as error:
            if error.reason != ErrorReason.ERROR_REASON_CONSUMER_BUSY:
                raise
            return False
        return True

    async def release(self) -> None:
        """Release the lease, so that another server can acquire it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._leases.release(lease)
