"""The system run that records API keys: every server of a store reads it, so that all of them know all keys."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from lavant.contract.limits import OWN_RUNS
from lavant.internal.v1.system_record_pb2 import KeyCreated, KeyRevoked, SystemRecord
from lavant.server.clock import Clock
from lavant.server.model import SERVER_TENANT, RunKey, beside
from lavant.server.store.port import Engine
from lavant.server.store.system_logs import OverwrittenError, SystemLogs, system_event, system_record
from lavant.v1.access_service_pb2 import Key
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.run_pb2 import RunSettings

_KEYS_RUN = f"{OWN_RUNS}keys"
_SETTINGS = RunSettings(name="keys")


class KeyLog:
    """The keys of a store, as last read from their log; it is created with the first key.

    `on_change` is called with a key, and its digest if it is new, for each that was created or revoked.
    """

    def __init__(self, engine: Engine, clock: Clock, on_change: Callable[[Key, bytes], None]) -> None:
        self.key = RunKey(beside(SERVER_TENANT, "access"), _KEYS_RUN)
        self.keys: dict[str, Key] = {}  # in the order of their creation
        self._digests: dict[str, bytes] = {}
        self._engine = engine
        self._clock = clock
        self._logs = SystemLogs(engine, clock)
        self._on_change = on_change
        self._sequence = 0
        self._lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Read what was appended since the last read."""
        async with self._lock:
            await self._read_on()

    async def create(self, key: Key, digest: bytes) -> Key:
        """Append a key, and return it with the time of its creation."""
        key.create_time.FromNanoseconds(self._clock.time_ns())
        record = SystemRecord(key_created=KeyCreated(key=key, digest=digest))
        await self._append(record, lambda: key.key_id in self.keys)
        return key

    async def revoke(self, key_id: str, revoked_by: str) -> Key:
        """Append that a key is revoked, unless it is, and return it."""
        revoked = KeyRevoked(key_id=key_id, revoked_by=revoked_by)
        revoked.revoke_time.FromNanoseconds(self._clock.time_ns())
        await self._append(SystemRecord(key_revoked=revoked), lambda: self.keys[key_id].HasField("revoke_time"))
        return self.keys[key_id]

    async def _append(self, record: SystemRecord, is_done: Callable[[], bool]) -> None:
        """Append a record unless it is superfluous; again if another server appended first."""
        async with self._lock:
            while not is_done():
                events = [system_event(record)]
                if not self._sequence:
                    events.insert(0, Event(run_started=RunStarted()))
                with suppress(OverwrittenError):
                    await self._logs.append(self.key, self._sequence, events, create=_SETTINGS)
                await self._read_on()

    async def _read_on(self) -> None:
        async for event in self._logs.read_on(self.key, self._sequence):
            self._take(event)
            self._sequence = event.sequence

    def _take(self, event: Event) -> None:
        record = system_record(event)
        if record is None:
            return
        if record.HasField("key_created"):
            key, digest = record.key_created.key, record.key_created.digest
            self.keys[key.key_id], self._digests[key.key_id] = key, digest
            self._on_change(key, digest)
        elif record.HasField("key_revoked"):
            key = self.keys[record.key_revoked.key_id]
            if not key.HasField("revoke_time"):  # two servers may revoke a key at once
                key.revoke_time.CopyFrom(record.key_revoked.revoke_time)
                self._on_change(key, self._digests[key.key_id])
