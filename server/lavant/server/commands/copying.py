"""Copy of a store from a SQLite file to NATS: every run with its events, times, producers and tokens."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from lavant.server.clock import SystemClock
from lavant.server.evaluation.log import rule_of
from lavant.server.evaluation.rules import Rules
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.jetstream.connection import Connection
from lavant.server.store.jetstream.engine import JetStreamEngine
from lavant.server.store.jetstream.feed import packed
from lavant.server.store.jetstream.location import PARTITIONS, Location
from lavant.server.store.jetstream.messages import Conflict, Messages
from lavant.server.store.jetstream.records import Batch, Record, Stamps, encode
from lavant.server.store.jetstream.setup import Limits, StoreUnusable, prepare
from lavant.server.store.port import StoreIdentity
from lavant.server.store.sqlite.files import FileLock
from lavant.server.store.sqlite.rows import RUN_COLUMNS, decode_run
from lavant.server.store.sqlite.schema import connect, next_incarnation, read_meta
from lavant.server.store.sqlite.verification import read_log, readable
from lavant.server.store.token_keys import decode
from lavant.v1.run_pb2 import Run

_MESSAGE_BYTES = 512 << 10
_RUNS = f"SELECT {RUN_COLUMNS}, change, created FROM runs ORDER BY change"  # noqa: S608 - constants


class Copied(NamedTuple):
    """Numbers of what was copied."""

    runs: int
    events: int


async def copy(source: Path, target: Location, limits: Limits, *, keep_epoch: bool = False) -> Copied:
    """Copy a file that no server has open into a store on NATS that no server uses yet.

    A copy that was interrupted is continued by calling this again. With `keep_epoch`, resume tokens of the old store
    are valid on the new one, and the old store may not be used any more; without, they are refused with
    STORE_EPOCH_CHANGED. Fences keep growing in either case. Raises StoreUnusable of either engine, StoreDamaged,
    Unanswered.
    """
    lock = FileLock(source)
    try:
        lock.watch()
        with readable(source), closing(connect(source, read_only=True)) as file:
            meta = read_meta(file, source)
            identity = StoreIdentity(meta["epoch"] if keep_epoch else secrets.token_hex(8), decode(meta["secret"]))
            connection = await Connection.open(target)
            try:
                found = await prepare(connection, target, limits, identity)
                if found.keys != identity.keys or (keep_epoch and found.epoch != identity.epoch):
                    raise StoreUnusable("another store exists there; name a new one, as in nats://HOST:PORT/NAME")
                messages = Messages(connection)
                await messages.advance(target.lease_stream, next_incarnation(meta["incarnation"], time.time_ns()))
                copying = _Copying(file, messages, target)
                copied = await copying.run()
            finally:
                await connection.close()
            engine = await JetStreamEngine.open(target, SystemClock())
            try:
                await Rules(engine, SystemClock()).move(copying.rules, copying.translate)
            finally:
                await engine.close()
            return copied
    finally:
        lock.release()


class _Copying:
    """State of a copy that runs."""

    def __init__(self, file: apsw.Connection, messages: Messages, target: Location) -> None:
        self._file = file
        self._messages = messages
        self._target = target
        self._locks = [asyncio.Lock() for _ in range(PARTITIONS)]
        # Whether a run was written to the partition: those after it are rewritten, so that the order of changes stays.
        self._rewritten = [False] * PARTITIONS
        self._positions: list[tuple[int, int, int]] = []  # change in the file, partition and sequence in the new store
        self.rules: list[RunKey] = []

    def translate(self, position: int) -> int:
        """Return the position in the new feed that is after the same changes as a position in the file's feed."""
        reached = [0] * PARTITIONS
        for change, partition, sequence in self._positions:
            if change <= position:
                reached[partition] = max(reached[partition], sequence)
        return packed(reached)

    async def run(self) -> Copied:
        """Copy all runs, one after the other in each partition, in the order of their last changes."""
        runs = events = stamp = 0
        free = asyncio.Semaphore(2 * PARTITIONS)
        try:
            async with asyncio.TaskGroup() as tasks:
                for *columns, change, created in self._file.execute(_RUNS):
                    row, key, log = decode_run(columns)
                    stamp = max(stamp + 1, created, log.run.end_time.ToNanoseconds())
                    await free.acquire()
                    copying = tasks.create_task(self._copy(row, change, key, log, Stamps(created, stamp)))
                    copying.add_done_callback(lambda _: free.release())
                    runs, events = runs + 1, events + log.run.last_sequence
                    if (rule := rule_of(key)) is not None and not log.sealed:
                        self.rules.append(rule)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return Copied(runs, events)

    async def _copy(self, row: int, change: int, key: RunKey, log: LogState, stamps: Stamps) -> None:
        subjects = self._target.run(key)
        async with self._locks[subjects.partition]:
            sequence = await self._write(row, key, log, stamps)
        self._positions.append((change, subjects.partition, sequence))

    async def _write(self, row: int, key: RunKey, log: LogState, stamps: Stamps) -> int:
        """Write a run unless its last message shows that it was copied before; return that message's sequence."""
        subjects = self._target.run(key)
        message = await self._messages.last(subjects.stream, subjects.all)
        if message is not None:
            there = _content(Record(message.sequence, message.data).log) == _content(log)
            if there and not self._rewritten[subjects.partition]:
                return message.sequence
            await self._messages.purge(subjects.stream, subjects.all, message.sequence + 1)
        self._rewritten[subjects.partition] = True
        sequence = 0
        for reached, batches in self._steps(row, key, log):
            subject = subjects.state if reached is log else subjects.events
            data = encode(key, stamps, reached, batches)
            try:
                sequence = await self._messages.publish(subject, data, sequence, among=subjects.all)
            except Conflict:
                raise StoreUnusable("a server uses the new store; stop it, and copy again") from None
        return sequence

    def _steps(self, row: int, key: RunKey, log: LogState) -> Iterator[tuple[LogState, list[Batch]]]:
        """Yield a run's batches in groups that fit a message, each with the run's state after it; the last is `log`."""
        reached = LogState(Run())
        reached.run.CopyFrom(log.run)
        group: list[Batch] = []
        size = 0
        for producer, chunk in read_log(self._file, row, key, log.run.last_sequence):
            if group and size + len(chunk.data) > _MESSAGE_BYTES:
                yield reached, group
                group, size = [], 0
            group.append(Batch(producer, chunk))
            size += len(chunk.data)
            last = producer.first_sequence + len(chunk.types) - 1
            owner_id = log.owners.get(producer.producer_id, "")
            reached.advance(producer.producer_id, producer.epoch, last, owner_id)
            reached.run.last_sequence = chunk.last_sequence
        yield log, group


def _content(log: LogState) -> tuple[bytes, bytes]:
    return log.run.SerializeToString(deterministic=True), log.encode()
