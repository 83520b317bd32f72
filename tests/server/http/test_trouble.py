"""What goes wrong while a stream is on: its reader gets an error, or resumes without a gap."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from grpc import aio
from structlog.testing import capture_logs

from lavant.server.store.sqlite import SQLiteEngine
from lavant.server.streaming.leases import ConsumerLeases
from server.http.reading import Sent, read, read_all
from support.calls import append, create, until
from support.clock import ManualClock
from support.events import custom, message_started, run_finished, run_started, text_delta
from support.server import Server, ServerProcess, connected, free_address, serving
from support.streams import delete, publish, recorded

RUN = "/api/v1/runs/run/stream"
SECRET = "secret-of-the-store"
LIMIT = 20.0


@asynccontextmanager
async def streamed(
    web: httpx.AsyncClient, until: str = "caught_up", **asked: Any
) -> AsyncIterator[AsyncIterator[Sent]]:
    """A stream that was read up to an event of a name."""
    async with web.stream("GET", RUN) as response:
        events = read(response)
        async with asyncio.timeout(LIMIT):
            while (await anext(events)).name != until:
                pass
        yield events


async def last_of(events: AsyncIterator[Sent]) -> Any:
    """What the end of a stream says."""
    async with asyncio.timeout(LIMIT):
        *_, last = [event async for event in events]
    assert last.name == "end"
    return json.loads(last.data)


async def fail(*_: object, **__: object) -> None:
    raise ZeroDivisionError(SECRET)


def check_incident(message: str, logs: list[Any]) -> None:
    """Whoever called knows the number under which the log has the rest, and nothing else."""
    (entry,) = [entry for entry in logs if entry["event"] == "call_failed"]
    assert message == f"internal error; the server's log has details under incident {entry['incident']}"
    assert str(entry["exc_info"]) == SECRET


@pytest.mark.parametrize("path", ["/api/v1/runs/run", "/api/v1/runs/run/events", RUN, "/api/v1/evaluations/run/stream"])
async def test_what_nobody_foresaw_is_an_incident(
    server: Server, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(SQLiteEngine, "get_run", fail)
    with capture_logs() as logs:
        answer = await web.get(path)
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    error = answer.json()["error"]
    assert (set(error), error["reason"]) == ({"reason", "message"}, "INTERNAL")
    check_incident(error["message"], logs)


@pytest.mark.parametrize(
    ("path", "broken"), [(RUN, (ConsumerLeases, "acquire")), ("/api/v1/watch", (SQLiteEngine, "list_changes"))]
)
async def test_so_it_is_before_a_stream_has_begun(
    server: Server, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, broken: tuple[type, str]
) -> None:
    await create(server.stubs)
    monkeypatch.setattr(*broken, fail)
    with capture_logs() as logs:
        answer = await web.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    check_incident(answer.json()["error"]["message"], logs)


async def test_so_it_is_in_the_middle_of_a_stream(
    server: Server, web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltas = [text_delta("x" * 100_000) for _ in range(5)]  # more than a frame
    await create(server.stubs)
    await publish(server.stubs, [run_started(), message_started(), *deltas], batch_size=1)
    read_log, reads = SQLiteEngine.read, count(1)

    async def fail_later(*asked: Any) -> Any:
        await fail() if next(reads) > 1 else None
        return await read_log(*asked)

    monkeypatch.setattr(SQLiteEngine, "read", fail_later)
    with capture_logs() as logs:
        *sent, ended = await read_all(web, RUN, stop="head")
    told = json.loads(ended.data)
    assert (ended.name, told["reason"], told["reconnect"], ended.last_id) == ("end", "INTERNAL", True, sent[-1].last_id)
    check_incident(told["message"], logs)
    monkeypatch.undo()
    rest = await read_all(web, RUN, ended.last_id, stop="head")
    assert len(sent) - len(["opened"]) + len(rest) - len(["opened", "caught_up", "end"]) == 7


async def test_a_run_that_is_deleted_ends_its_streams(server: Server, web: httpx.AsyncClient) -> None:
    await create(server.stubs)
    notes = [custom("acme.note", json.dumps("x" * 900_000)) for _ in range(30)]
    await publish(server.stubs, [run_started(), *notes, run_finished()], batch_size=1)
    async with web.stream("GET", RUN) as response:
        events = read(response)
        opened = await anext(events)  # The rest waits until it is read.
        await delete(server.stubs)
        told = await last_of(events)
    assert (told["reason"], told["reconnect"]) == ("RUN_NOT_FOUND", False)
    assert (await web.get(RUN, headers={"Last-Event-ID": opened.last_id})).status_code == 404


async def test_silence_ends_a_stream_and_heartbeats_show_where_it_is(tmp_path: Path) -> None:
    clock = ManualClock()
    async with (
        serving(tmp_path, clock=clock, http="127.0.0.1:0") as server,
        httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=LIMIT) as web,
    ):
        await create(server.stubs)
        await append(server.stubs, [run_started(), message_started()])
        asked = {"idle_timeout": "7.5", "heartbeat_interval": "3.25", "type": "text_delta"}
        async with web.stream("GET", RUN, params=asked) as response:
            lines = response.aiter_lines()
            while await anext(lines) != "event: caught_up":
                pass
            await clock.awaited(3.25)
            clock.advance(3.25)
            while await anext(lines) != ": heartbeat":
                pass
            last_id = (await anext(lines)).removeprefix("id: ")
            await clock.awaited(3.25)
            clock.advance(3.25)
            await clock.awaited(1)
            clock.advance(1)
            rest = [line async for line in lines]
            assert 'data: {"reason": "IDLE", "reconnect": false}' in rest
        await append(server.stubs, [text_delta("now"), run_finished()], first=3)
        deltas = [event.data for event in await read_all(web, RUN, last_id) if event.name == "text_delta"]
        assert [json.loads(delta)["sequence"] for delta in deltas] == ["3"]


async def test_whoever_hangs_up_leaves_its_place(server: Server) -> None:
    await create(server.stubs)
    host, port = server.app.http_address.split(":")
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {RUN}?consumer=ui HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"event: caught_up")
        writer.transport.abort()
        await until(lambda: len(server.app.calls) == 0)


class Site:
    """A server in a process of its own that serves both, on addresses that survive it."""

    def __init__(self, folder: Path) -> None:
        self.process = ServerProcess(folder, admin="127.0.0.1:0")
        self.address = free_address()

    async def start(self, *flags: str) -> None:
        await self.process.start("--http", self.address, *flags)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.process.kill()


async def stalled(site: Site) -> asyncio.StreamWriter:
    """A reader that reads the first event and nothing more."""
    host, port = site.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 12)
    writer.write(f"GET {RUN}?consumer=ui HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"event: opened")
    return writer


async def test_a_reader_that_never_reads_costs_a_bounded_memory_and_then_its_place(site: Site) -> None:
    await site.start("--write-timeout", "0.5")
    async with connected(site.process.target) as stubs, httpx.AsyncClient(base_url=f"http://{site.address}") as web:
        await create(stubs)
        notes = [custom("acme.note", json.dumps("x" * 1_000_000)) for _ in range(60)]
        await publish(stubs, [run_started(), *notes[:10]], batch_size=1)
        memory = psutil.Process(site.process.pid).memory_info().rss
        writer = await stalled(site)
        await publish(stubs, notes[10:], batch_size=1, first=12)
        assert psutil.Process(site.process.pid).memory_info().rss - memory < 40 << 20
        async with asyncio.timeout(LIMIT):
            while not await is_free(web):
                pass
        metrics = (await web.get(f"http://{site.process.admin}/metrics")).text
        assert 'lavant_streams_ended_total{protocol="http",reason="SLOW_CONSUMER"} 1.0' in metrics
        writer.transport.abort()


async def is_free(web: httpx.AsyncClient) -> bool:
    """Return whether the consumer's lease is free."""
    async with web.stream("GET", f"{RUN}?consumer=ui") as answer:
        assert answer.status_code in (200, 409)
        return answer.status_code == 200


@pytest.mark.parametrize("reads", [True, False])
async def test_sigterm_drains_and_ends_with_0(site: Site, reads: bool) -> None:
    await site.start("--drain-timeout", "1")
    async with connected(site.process.target) as stubs, httpx.AsyncClient(base_url=f"http://{site.address}") as web:
        await create(stubs)
        await append(stubs, [run_started()])
        async with streamed(web, "run_started") as events, web.stream("GET", "/api/v1/watch") as watch:
            runs = read(watch)
            assert (await anext(runs)).name == "run"
            writer = None
            if not reads:
                writer = await stalled(site)
                for number in range(10):
                    await publish(stubs, [custom("acme.note", json.dumps("x" * 900_000))], first=2 + number)
            ending = asyncio.create_task(site.process.terminate())
            assert await last_of(events) == {"reason": "DRAINING", "reconnect": True}
            assert await last_of(runs) == {"reason": "DRAINING", "reconnect": True}
        async with asyncio.timeout(LIMIT):
            assert await ending == 0
        if writer is not None:
            writer.close()


class Reader:
    """Reads the text of a run, over any number of connections."""

    def __init__(self, **asked: str) -> None:
        self.text = ""
        self._asked = {**asked, "consumer": "ui"}
        self._last_id = ""

    async def read(
        self, web: httpx.AsyncClient, words: int = 1 << 30, *, then_kill: ServerProcess | None = None
    ) -> None:
        """Read so many words, then what still comes of a server that is killed; or to the end."""
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        async with web.stream("GET", RUN, params=self._asked, headers=headers) as response, asyncio.timeout(LIMIT):
            async for event in read(response):
                self._last_id = event.last_id
                if event.name == "text_delta":
                    self.text += json.loads(event.data)["text_delta"]["text"]
                if then_kill is not None and self.text.count(" ") >= words:
                    await then_kill.kill()
                    then_kill = None


@pytest.mark.parametrize("asked", [{}, {"deltas": "merged"}])
async def test_a_server_that_is_killed_again_and_again_leaves_no_gap(site: Site, asked: dict[str, str]) -> None:
    words = [f"w{number} " for number in range(400)]
    reader = Reader(**asked)
    await site.start()
    async with connected(site.process.target) as stubs:
        await create(stubs)
        await append(stubs, [run_started(), message_started()])
    for life in range(4):
        async with connected(site.process.target) as stubs, httpx.AsyncClient(base_url=f"http://{site.address}") as web:
            mine = [text_delta(word) for word in words[life * 100 : (life + 1) * 100]]
            reading = asyncio.create_task(reader.read(web, life * 100 + 60, then_kill=site.process))
            with suppress(aio.AioRpcError):  # Only the log shows what of the last batches was stored.
                await publish(stubs, mine, batch_size=7, first=3 + life * 100)
            with suppress(httpx.HTTPError):
                await reading
        await site.start()
        async with connected(site.process.target) as stubs:
            stored = len(await recorded(stubs)) - 2 - life * 100
            await publish(stubs, mine[stored:], first=3 + life * 100 + stored)
    async with connected(site.process.target) as stubs, httpx.AsyncClient(base_url=f"http://{site.address}") as web:
        await append(stubs, [run_finished()], first=3 + len(words))
        await reader.read(web)
    assert reader.text == "".join(words)


@pytest.mark.parametrize("length", ["0", "5", ""], ids=["and no length", "and a length", "alone"])
async def test_a_request_of_doubtful_length_ends_its_connection(tmp_path: Path, length: str) -> None:
    smuggled = b"5\r\nGET /\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += f"Content-Length: {length}\r\n" if length else ""
    async with serving(tmp_path, http="127.0.0.1:0") as server, asyncio.timeout(LIMIT):
        host, port = server.app.http_address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode() + b"\r\n" + smuggled)
        answer = await reader.read()  # to the end of the connection
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()
