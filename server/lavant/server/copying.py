"""Copies a store in a SQLite file to NATS: every run as it is, with its times, its producers and its tokens."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from lavant.server.errors import LavantError, data_loss
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.jetstream.connection import Connection
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.messages import Conflict, Messages
from lavant.server.store.jetstream.records import Batch, Record, Stamps, encode
from lavant.server.store.jetstream.setup import Limits, StoreUnusable, prepare
from lavant.server.store.port import StoreIdentity
from lavant.server.store.sqlite.rows import BATCH_COLUMNS, RUN_COLUMNS, SEQUENCE_MASK, decode_batch, decode_run
from lavant.server.store.sqlite.schema import FileLock, connect, read_meta
from lavant.server.store.sqlite.verification import readable
from lavant.v1.run_pb2 import Run

_AT_ONCE = 32  # runs
_MESSAGE_BYTES = 512 << 10
# ruff: noqa: S608 - every value is bound; only constants of these packages become part of the text
_RUNS = f"SELECT {RUN_COLUMNS} FROM runs ORDER BY id"
_BATCHES = f"SELECT {BATCH_COLUMNS} FROM batches WHERE id BETWEEN ? AND ? ORDER BY id"


class Copied(NamedTuple):
    """How much a copy holds."""

    runs: int
    events: int


async def copy(source: Path, target: Location, limits: Limits, *, keep_epoch: bool = False) -> Copied:
    """Copy a file that no server has open into a store on NATS that no server uses yet; again, if it was cut off.

    With `keep_epoch`, resume tokens of the file's store work on the new one: nobody may go on with the old. Without,
    they are refused with STORE_EPOCH_CHANGED. Raises StoreUnusable of either engine, StoreDamaged, Unanswered.
    """
    lock = FileLock(source)
    try:
        with readable(source), closing(connect(source, read_only=True)) as file:
            meta = read_meta(file, source)
            identity = StoreIdentity(meta["epoch"] if keep_epoch else secrets.token_hex(8), meta["secret"])
            connection = await Connection.open(target.servers)
            try:
                found = await prepare(connection, target, limits, identity)
                if found.secret != identity.secret or (keep_epoch and found.epoch != identity.epoch):
                    raise StoreUnusable("there is another store already; name a new one, as nats://HOST:PORT/NAME")
                return await _Copying(file, Messages(connection), target).run()
            finally:
                await connection.close()
    finally:
        lock.release()


class _Copying:
    """One copy under way."""

    def __init__(self, file: apsw.Connection, messages: Messages, target: Location) -> None:
        self._file = file
        self._messages = messages
        self._target = target

    async def run(self) -> Copied:
        """Copy all runs, some at once, in the order of their creation."""
        runs = events = order = 0
        room = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                for values in self._file.execute(_RUNS):
                    row, key, log = decode_run(values)
                    order = max(order + 1, log.run.create_time.ToNanoseconds())
                    await room.acquire()
                    tasks.create_task(self._copy(row, key, log, order)).add_done_callback(lambda _: room.release())
                    runs, events = runs + 1, events + log.run.last_sequence
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return Copied(runs, events)

    async def _copy(self, row: int, key: RunKey, log: LogState, order: int) -> None:
        """Copy a run, unless it is there as it is: its last message tells."""
        subjects = self._target.run(key)
        message = await self._messages.last(subjects.stream, subjects.all)
        if message is not None:
            if _content(Record(message.sequence, message.data).log) == _content(log):
                return
            await self._messages.purge(subjects.stream, subjects.all, message.sequence + 1)
        reached = LogState(Run())
        reached.run.CopyFrom(log.run)
        reached.run.last_sequence = sequence = 0
        for batches in self._groups(row, key):
            for producer, chunk in batches:
                if chunk.first_sequence != reached.run.last_sequence + 1:
                    raise _lacking(reached)
                reached.run.last_sequence = chunk.last_sequence
                last = producer.first_sequence + len(chunk.types) - 1
                reached.producers[producer.producer_id] = (producer.epoch, last)
            is_last = reached.run.last_sequence == log.run.last_sequence
            data = encode(key, Stamps(order, order), log if is_last else reached, batches)
            subject = subjects.state if is_last else subjects.events
            try:
                sequence = await self._messages.publish(subject, data, sequence, among=subjects.all)
            except Conflict:
                raise StoreUnusable("a server uses the new store already; stop it, and copy again") from None
        if reached.run.last_sequence != log.run.last_sequence:
            raise _lacking(reached)

    def _groups(self, row: int, key: RunKey) -> Iterator[list[Batch]]:
        """A run's batches, as many together as a message takes; a run without any has one group without any."""
        group: list[Batch] = []
        size = 0
        for values in self._file.execute(_BATCHES, (row << 32, row << 32 | SEQUENCE_MASK)):
            batch = Batch(*decode_batch(key, values))
            if group and size + len(batch.chunk.data) > _MESSAGE_BYTES:
                yield group
                group, size = [], 0
            group.append(batch)
            size += len(batch.chunk.data)
        yield group


def _lacking(reached: LogState) -> LavantError:
    return data_loss(f"run {reached.run.run_id} lacks events from {reached.run.last_sequence + 1} on")


def _content(log: LogState) -> tuple[bytes, bytes]:
    return log.run.SerializeToString(deterministic=True), log.encode()
