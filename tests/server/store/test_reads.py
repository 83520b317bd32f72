"""Threads that read: whose query runs next, and which ones stop."""

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

import apsw
import pytest

from lavant.server.store.reads import ReadThreads, check_caller, open_temporary
from lavant.server.turns import Origin, serve
from support.calls import until
from support.engines import refused

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
_SETUP = "CREATE TABLE numbers(number INTEGER PRIMARY KEY); INSERT INTO numbers VALUES(1), (2), (3)"

Query = Callable[[apsw.Connection], Any]


class Database:
    """A database with one thread that reads, and if need be one for slow queries."""

    def __init__(self, *, slow: bool) -> None:
        self.writer, (quick, other) = open_temporary(_SETUP, 2)
        self._other = other
        self.threads = ReadThreads([quick], slow=[other] if slow else (), name="test", max_waiting=10)

    async def close(self) -> None:
        await self.threads.close()
        self._other.close()
        self.writer.close()


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database(slow=False)
    yield opened
    await opened.close()


@pytest.fixture
async def two_lanes() -> AsyncIterator[Database]:
    opened = Database(slow=True)
    yield opened
    await opened.close()


def numbers(connection: apsw.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM numbers").get
    return count


class Endless:
    """A query that SQLite never finishes, or that never leaves Python."""

    def __init__(self, sql: str | None = _ENDLESS) -> None:
        self.begun = 0
        self._sql = sql

    def __call__(self, connection: apsw.Connection) -> None:
        self.begun += 1
        if self._sql is None:
            while True:
                check_caller()
        connection.execute(self._sql).fetchall()


@pytest.mark.parametrize("sql", [_ENDLESS, None])
async def test_a_query_stops_when_its_caller_has_gone(
    database: Database, sql: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    endless = Endless(sql)
    asked = asyncio.create_task(database.threads.ask(endless))
    await until(lambda: endless.begun == 1)
    asked.cancel()
    async with asyncio.timeout(10):  # the only thread is free again
        assert await database.threads.ask(numbers) == 3
    assert asked.cancelled()
    del asked
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_queries_of_callers_that_have_gone_are_never_begun(database: Database) -> None:
    endless = Endless()
    asked = [asyncio.create_task(database.threads.ask(endless)) for _ in range(10)]
    await until(lambda: endless.begun == 1)
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    async with asyncio.timeout(10):
        await database.threads.ask(numbers)
    assert endless.begun == 1


async def test_quick_queries_are_answered_while_slow_ones_run(two_lanes: Database) -> None:
    endless = Endless()
    asked = [asyncio.create_task(two_lanes.threads.ask(endless)) for _ in range(5)]
    await until(lambda: endless.begun > 1)  # the first one has begun again, on the connection of slow ones
    async with asyncio.timeout(10):
        for _ in range(5):
            assert await two_lanes.threads.ask(numbers) == 3
    assert not any(one.done() for one in asked)
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)


async def test_a_slow_query_is_finished_on_another_connection(
    two_lanes: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavant.server.store.reads.QUICK", 0.001)
    asked: list[apsw.Connection] = []

    def slow(connection: apsw.Connection) -> Any:
        asked.append(connection)
        return connection.execute(f"SELECT count(*) FROM ({_ENDLESS.removesuffix('SELECT count(*) FROM n')}"
                                  "SELECT i FROM n LIMIT 1000000)").get  # fmt: skip

    assert await two_lanes.threads.ask(slow) == 1_000_000
    assert len(set(map(id, asked))) == 2


async def test_tenants_have_their_queries_in_turn(database: Database) -> None:
    hold, begun, order = ThreadEvent(), ThreadEvent(), list[str]()

    def blocks(_: apsw.Connection) -> None:
        begun.set()
        hold.wait()

    async def ask(tenant: str) -> None:
        serve(Origin(tenant))
        await database.threads.ask(lambda _: order.append(tenant))

    blocking = asyncio.create_task(database.threads.ask(blocks))
    await until(begun.is_set)
    asked = [asyncio.create_task(ask("flood")) for _ in range(8)]
    await asyncio.sleep(0)
    asked.append(asyncio.create_task(ask("one")))
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(blocking, *asked)
    assert order.index("one") <= 1


async def test_only_so_many_queries_of_a_tenant_wait(database: Database) -> None:
    hold = ThreadEvent()
    asked = [asyncio.create_task(database.threads.ask(lambda _: hold.wait())) for _ in range(11)]
    await asyncio.sleep(0)
    with refused("UNAVAILABLE"):
        await database.threads.ask(numbers)
    hold.set()
    await asyncio.gather(*asked)


async def test_a_failed_query_leaves_no_view_behind(database: Database) -> None:
    def fails(connection: apsw.Connection) -> None:
        rows = connection.execute("SELECT number FROM numbers")
        next(rows)
        raise LookupError

    failed = asyncio.create_task(database.threads.ask(fails))
    await asyncio.wait([failed])  # its exception has the frame, and so the cursor
    database.writer.execute("INSERT INTO numbers VALUES(4)")
    assert await database.threads.ask(numbers) == 4
    assert isinstance(failed.exception(), LookupError)


def test_a_temporary_database_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    writer, (reader,) = open_temporary(_SETUP, 1)
    assert list(tmp_path.iterdir()) == []
    with writer:
        writer.executemany("INSERT INTO numbers VALUES(?)", [(number,) for number in range(4, 100_000)])
    assert numbers(reader) == 99_999
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO numbers VALUES(0)")
    reader.close()
    writer.close()
