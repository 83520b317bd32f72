"""Copies a store in a SQLite file to NATS: every run as it is, with its times, its producers and its tokens."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw

from lavant.server.clock import SystemClock
from lavant.server.evaluation.moving import go_on
from lavant.server.evaluation.record import rule_of
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.jetstream.connection import Connection
from lavant.server.store.jetstream.engine import JetStreamEngine
from lavant.server.store.jetstream.location import PARTITIONS, Location
from lavant.server.store.jetstream.messages import Conflict, Messages
from lavant.server.store.jetstream.projection import packed
from lavant.server.store.jetstream.records import Batch, Record, Stamps, encode
from lavant.server.store.jetstream.setup import Limits, StoreUnusable, prepare
from lavant.server.store.port import StoreIdentity
from lavant.server.store.sqlite.ownership import FileLock
from lavant.server.store.sqlite.rows import RUN_COLUMNS, decode_run
from lavant.server.store.sqlite.schema import connect, next_incarnation, read_meta
from lavant.server.store.sqlite.verification import read_log, readable
from lavant.v1.run_pb2 import Run

_MESSAGE_BYTES = 512 << 10
# Runs in the order of their last changes, each with a number that grows with every creation: its time, or the next one.
# ruff: noqa: S608 - every value is bound; only constants of these packages become part of the text
_RUNS = f"""SELECT {RUN_COLUMNS}, change, created FROM runs JOIN (
        SELECT id AS row, number + max(create_ns - number) OVER (ORDER BY id) AS created
        FROM (SELECT id, create_ns, row_number() OVER (ORDER BY id) AS number FROM runs)
    ) ON row = id ORDER BY change"""


class Copied(NamedTuple):
    """How much a copy holds."""

    runs: int
    events: int


async def copy(source: Path, target: Location, limits: Limits, *, keep_epoch: bool = False) -> Copied:
    """Copy a file that no server has open into a store on NATS that no server uses yet; again, if it was cut off.

    With `keep_epoch`, resume tokens of the file's store work on the new one: nobody may go on with the old. Without,
    they are refused with STORE_EPOCH_CHANGED. Fences go on growing in either case. Raises StoreUnusable of
    either engine, StoreDamaged, Unanswered.
    """
    lock = FileLock(source)
    try:
        lock.watch()
        with readable(source), closing(connect(source, read_only=True)) as file:
            meta = read_meta(file, source)
            identity = StoreIdentity(meta["epoch"] if keep_epoch else secrets.token_hex(8), meta["secret"])
            connection = await Connection.open(target.servers)
            try:
                found = await prepare(connection, target, limits, identity)
                if found.secret != identity.secret or (keep_epoch and found.epoch != identity.epoch):
                    raise StoreUnusable("there is another store already; name a new one, as nats://HOST:PORT/NAME")
                messages = Messages(connection)
                await messages.advance(target.lease_stream, next_incarnation(meta["incarnation"], time.time_ns()))
                copying = _Copying(file, messages, target)
                copied = await copying.run()
            finally:
                await connection.close()
            engine = await JetStreamEngine.open(target, SystemClock())
            try:
                await go_on(engine, SystemClock(), copying.rules, copying.translated)
            finally:
                await engine.close()
            return copied
    finally:
        lock.release()


class _Copying:
    """One copy under way."""

    def __init__(self, file: apsw.Connection, messages: Messages, target: Location) -> None:
        self._file = file
        self._messages = messages
        self._target = target
        self._turns = [asyncio.Lock() for _ in range(PARTITIONS)]
        self._anew = [False] * PARTITIONS
        self._places: list[tuple[int, int, int]] = []  # changes, and the partitions and sequences that they went to
        self.rules: list[RunKey] = []

    def translated(self, position: int) -> int:
        """A position in the new feed behind those changes that a position of the file's is behind of."""
        reached = [0] * PARTITIONS
        for change, partition, sequence in self._places:
            if change <= position:
                reached[partition] = max(reached[partition], sequence)
        return packed(reached)

    async def run(self) -> Copied:
        """Copy all runs, in each stream one after the other: lists tell of them in the order of their last changes."""
        runs = events = stamp = 0
        room = asyncio.Semaphore(2 * PARTITIONS)
        try:
            async with asyncio.TaskGroup() as tasks:
                for *columns, change, created in self._file.execute(_RUNS):
                    row, key, log = decode_run(columns)
                    stamp = max(stamp + 1, created, log.run.end_time.ToNanoseconds())
                    await room.acquire()
                    copying = tasks.create_task(self._copy(row, change, key, log, Stamps(created, stamp)))
                    copying.add_done_callback(lambda _: room.release())
                    runs, events = runs + 1, events + log.run.last_sequence
                    if (rule := rule_of(key)) is not None and not log.sealed:
                        self.rules.append(rule)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return Copied(runs, events)

    async def _copy(self, row: int, change: int, key: RunKey, log: LogState, stamps: Stamps) -> None:
        """Copy a run, unless it is there as it is: its last message tells. What comes behind a copied one is copied."""
        subjects = self._target.run(key)
        sequence = await self._copied(row, key, log, stamps)
        self._places.append((change, subjects.partition, sequence))

    async def _copied(self, row: int, key: RunKey, log: LogState, stamps: Stamps) -> int:
        subjects = self._target.run(key)
        async with self._turns[subjects.partition]:
            message = await self._messages.last(subjects.stream, subjects.all)
            if message is not None:
                there = _content(Record(message.sequence, message.data).log) == _content(log)
                if there and not self._anew[subjects.partition]:
                    return message.sequence
                await self._messages.purge(subjects.stream, subjects.all, message.sequence + 1)
            self._anew[subjects.partition] = True
            sequence = 0
            for reached, batches in self._steps(row, key, log):
                subject = subjects.state if reached is log else subjects.events
                data = encode(key, stamps, reached, batches)
                try:
                    sequence = await self._messages.publish(subject, data, sequence, among=subjects.all)
                except Conflict:
                    raise StoreUnusable("a server uses the new store already; stop it, and copy again") from None
            return sequence

    def _steps(self, row: int, key: RunKey, log: LogState) -> Iterator[tuple[LogState, list[Batch]]]:
        """A run's batches, as many together as a message takes, and how the run stands after them: at last as `log`."""
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
            reached.producers[producer.producer_id] = (producer.epoch, last)
            reached.run.last_sequence = chunk.last_sequence
        yield log, group


def _content(log: LogState) -> tuple[bytes, bytes]:
    return log.run.SerializeToString(deterministic=True), log.encode()
