"""PostgreSQL: events in a table, and NOTIFY for those who follow."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from benchmarks.events import json_events, text_of
from benchmarks.kit.process import Process, free_address, process
from benchmarks.peers.base import Peer
from benchmarks.peers.programs import debian_package, program

PAGE = 1_000
SCHEMA = """
    CREATE TABLE IF NOT EXISTS runs(number bigserial, id text PRIMARY KEY, name text, state text, labels jsonb);
    CREATE TABLE IF NOT EXISTS events(run text, number bigint, data bytea, PRIMARY KEY(run, number))
"""
LIST_INDEXES = """
    CREATE INDEX ON runs(number); CREATE INDEX ON runs(state, number);
    CREATE INDEX ON runs(name text_pattern_ops, number);
    CREATE INDEX ON runs USING gin(labels jsonb_path_ops);
    ANALYZE runs
"""
APPEND = """
    WITH inserted AS (
        INSERT INTO events SELECT $1, $2::bigint + n, d FROM unnest($3::bytea[]) WITH ORDINALITY AS t(d, n)
    )
    SELECT pg_notify('events', $1)
"""


class Postgres(Peer):
    """A row per event, one statement per append, `synchronous_commit` on."""

    name = "postgres"

    def __init__(self, pool: Any, address: str) -> None:
        self._pool = pool
        self._address = address

    @classmethod
    def install(cls) -> None:
        """Install Debian's package."""
        debian_package("postgresql")

    @classmethod
    def check(cls) -> None:
        """Find the server."""
        _program("postgres")

    @classmethod
    @asynccontextmanager
    async def serve(cls, folder: Path) -> AsyncIterator[Process]:
        """Run a new cluster; not as root, which the server refuses."""
        address, data = free_address(), folder / "data"
        user: tuple[str, ...] = ()
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            user = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups")
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C")
        creating = [*user, _program("initdb"), "-D", str(data), *options]
        await asyncio.to_thread(subprocess.run, creating, check=True, capture_output=True, timeout=60)
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "max_wal_size=4GB")
        flags = [word for setting in (*settings, "shared_buffers=512MB") for word in ("-c", setting)]
        command = (*user, _program("postgres"), "-D", data, "-p", address.split(":")[1], *flags)
        async with process(*command, folder=folder, address=address) as server:
            connection = await _connected(address)
            await connection.execute(SCHEMA)
            await connection.close()
            yield server

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: str, *, width: int = 1) -> AsyncIterator[Self]:
        """Connect, with a connection per call at once."""
        async with asyncpg.create_pool(_url(address), min_size=width, max_size=width) as pool:
            yield cls(pool, address)

    async def create(self, run: str) -> None:
        """Insert the run."""
        query = "INSERT INTO runs(id, name, state, labels) VALUES($1, 'agent', 'running', $2)"
        await self._pool.execute(query, run, '{"env": "prod"}')

    def encode(self, run: str, first: int, texts: Sequence[str], *, end: bool = False) -> Any:
        """Return the statement's arguments, and whether the run ends."""
        return (run, first - 1, json_events(first, texts)), end

    async def append(self, encoded: Any) -> None:
        """Insert all events by one statement; the end of a run is one more."""
        arguments, end = encoded
        await self._pool.fetch(APPEND, *arguments)
        if end:
            await self._pool.execute("UPDATE runs SET state = 'succeeded' WHERE id = $1", arguments[0])

    async def read(self, run: str) -> int:
        """Read by pages."""
        length, after = 0, 0
        while page := await self._page(self._pool, run, after):
            length += sum(len(text_of(row["data"])) for row in page)
            after = page[-1]["number"]
        return length

    async def follow(self, run: str) -> AsyncIterator[str]:
        """Yield the texts: a query after each notification."""
        notified, after = asyncio.Event(), 0
        listener = await _connected(self._address)
        await listener.add_listener("events", lambda *_: notified.set())
        while True:
            for row in await self._page(self._pool, run, after):
                after = row["number"]
                yield text_of(row["data"])
            await notified.wait()
            notified.clear()

    async def fill_runs(self, runs: Sequence[tuple[str, str, str, dict[str, str]]]) -> None:
        """Copy runs of these ids, names, states and labels, with indexes on all that lists filter by."""
        records = [(run, name, state, json.dumps(labels)) for run, name, state, labels in runs]
        await self._pool.copy_records_to_table("runs", columns=["id", "name", "state", "labels"], records=records)
        await self._pool.execute(LIST_INDEXES)

    async def find_runs(self, condition: str, limit: int) -> int:
        """Return how many of the newest runs were found."""
        return len(await self._pool.fetch(f"SELECT * FROM runs WHERE {condition} ORDER BY number DESC LIMIT {limit}"))

    @staticmethod
    async def _page(connection: Any, run: str, after: int) -> Any:
        query = "SELECT number, data FROM events WHERE run = $1 AND number > $2 ORDER BY number LIMIT $3"
        return await connection.fetch(query, run, after, PAGE)


def _url(address: str) -> str:
    return f"postgres://postgres@{address}/postgres"


async def _connected(address: str) -> Any:
    """Connect to a server that accepts connections before it answers queries."""
    for _ in range(500):
        try:
            return await asyncpg.connect(_url(address))
        except asyncpg.CannotConnectNowError:
            await asyncio.sleep(0.02)
    raise TimeoutError(f"the server at {address} does not answer")


def _program(name: str) -> str:
    return program(name, "usr/lib/postgresql/*/bin")
