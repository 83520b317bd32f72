"""The limit of Python gRPC: grpc.aio on uvloop with a list in memory per run. No ids, tokens or checks.

With a file, batches are committed to SQLite before they are acknowledged or shown, all that wait in one commit. With
a certificate and its key as well, the server uses TLS.
"""

import asyncio
import queue
import sys
import threading
from pathlib import Path
from typing import Any

import apsw
import grpc
import uvloop
from grpc import aio

Context = aio.ServicerContext[Any, Any]
SERVICE = "bare.Runs"
FRAME = 256 << 10
GROUP = 256  # batches a commit: as many as lavant takes
METHODS = ("Create", "Append", "Publish", "Stream", "List")
CREATE, APPEND, PUBLISH, STREAM, LIST = (f"/{SERVICE}/{name}" for name in METHODS)


def message(run: str, payload: bytes, *, end: bool = False) -> bytes:
    """Return the message that appends a payload to a run, and ends it."""
    name = run.encode()
    return bytes((len(name), end)) + name + payload


class _Log:
    """A writer thread that commits all waiting batches at once."""

    def __init__(self, file: Path) -> None:
        self._connection = apsw.Connection(str(file))
        self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self._connection.execute("PRAGMA synchronous = FULL").fetchall()
        self._connection.execute("CREATE TABLE batches (id INTEGER PRIMARY KEY, events BLOB)")
        self._waiting: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write, daemon=True).start()

    def store(self, payload: bytes) -> asyncio.Future[None]:
        """Return what is done when the payload is durable."""
        stored = self._loop.create_future()
        self._waiting.put((payload, stored))
        return stored

    def _write(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO batches VALUES (NULL, ?)", [(payload,) for payload, _ in group])
            self._connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._resolve, group)

    @staticmethod
    def _resolve(group: list[tuple[bytes, asyncio.Future[None]]]) -> None:
        for _, stored in group:
            if not stored.cancelled():
                stored.set_result(None)


class _Run:
    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.ended = False
        self.changed: set[asyncio.Event] = set()


class _Runs:
    def __init__(self, log: _Log | None) -> None:
        self._log = log
        self._runs: dict[bytes, _Run] = {}

    def _run(self, name: bytes) -> _Run:
        return self._runs.setdefault(name, _Run())

    async def create(self, name: bytes, _: Context) -> bytes:
        self._run(name)
        if self._log is not None:
            await self._log.store(name)
        return b"ok"

    async def append(self, data: bytes, _: Context) -> bytes:
        if self._log is not None:
            await self._log.store(data)
        self._add(data)
        return b"ok"

    async def publish(self, _: object, context: Context) -> None:
        if self._log is None:
            while (data := await context.read()) is not aio.EOF:
                self._add(data)
                await context.write(b"ok")
            return
        answers: asyncio.Queue[tuple[bytes, asyncio.Future[None]] | None] = asyncio.Queue()
        answering = asyncio.create_task(self._answer(answers, context))
        while (data := await context.read()) is not aio.EOF:
            answers.put_nowait((data, self._log.store(data)))
        answers.put_nowait(None)
        await answering

    async def _answer(self, answers: "asyncio.Queue[Any]", context: Context) -> None:
        while (answer := await answers.get()) is not None:
            data, stored = answer
            await stored
            self._add(data)
            await context.write(b"ok")

    def _add(self, data: bytes) -> None:
        size = data[0] + 2
        run = self._run(data[2:size])
        if payload := data[size:]:
            run.batches.append(payload)
        run.ended = run.ended or bool(data[1])
        for changed in run.changed:
            changed.set()

    async def stream(self, name: bytes, context: Context) -> None:
        run, sent, changed = self._run(name), 0, asyncio.Event()
        run.changed.add(changed)
        await context.send_initial_metadata(())  # opened: lavant's first frame
        try:
            while True:
                changed.clear()
                while sent < len(run.batches):
                    end, size = sent + 1, len(run.batches[sent])
                    while end < len(run.batches) and size < FRAME // 2:
                        size += len(run.batches[end])
                        end += 1
                    frame = b"".join(run.batches[sent:end]) if end > sent + 1 else run.batches[sent]
                    sent = end
                    await context.write(frame)
                if run.ended and sent == len(run.batches):
                    return
                await changed.wait()
        finally:
            run.changed.discard(changed)

    async def list_events(self, name: bytes, _: Context) -> bytes:
        return b"".join(self._run(name).batches)


def _credentials(cert: str, key: str) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(cert).read_bytes())])


async def _serve(file: str = "", cert: str = "", key: str = "") -> None:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 8 << 20),
        ("grpc.max_concurrent_streams", 1_000),
        ("grpc.http.overload_protection", 0),
    ]
    server = aio.server(options=options)
    runs = _Runs(_Log(Path(file)) if file else None)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Create": grpc.unary_unary_rpc_method_handler(runs.create),
        "Append": grpc.unary_unary_rpc_method_handler(runs.append),
        "Publish": grpc.stream_stream_rpc_method_handler(runs.publish),
        "Stream": grpc.unary_stream_rpc_method_handler(runs.stream),
        "List": grpc.unary_unary_rpc_method_handler(runs.list_events),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if cert:
        port = server.add_secure_port("127.0.0.1:0", _credentials(cert, key))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
