"""What lavant is compared with: bare grpc.aio servers that do the least that the same job needs."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop
from grpc import aio

Context = aio.ServicerContext[Any, Any]
REPLAY = "/bare.Bare/Replay"
PUBLISH = "/bare.Bare/Publish"
SUBSCRIBE = "/bare.Bare/Subscribe"


def _replay(frames_file: Path) -> Callable[[bytes, Context], Awaitable[None]]:
    """Send ready frames, kept in memory, as fast as the reader takes them."""
    data = frames_file.read_bytes()
    frames, position = [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        frames.append(data[position + 4 : position + 4 + size])
        position += 4 + size

    async def handle(_: bytes, context: Context) -> None:
        for frame in frames:
            await context.write(frame)

    return handle


class _Relay:
    """Pass each message on to one subscriber once it is on disk."""

    def __init__(self, log_file: Path) -> None:
        self._log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._subscriber: Context | None = None

    async def publish(self, _: object, context: Context) -> None:
        loop = asyncio.get_running_loop()
        while (message := await context.read()) is not aio.EOF:
            await loop.run_in_executor(None, self._store, message)
            await context.write(b"ok")
            if self._subscriber is not None:
                await self._subscriber.write(message)

    async def subscribe(self, _: bytes, context: Context) -> None:
        self._subscriber = context
        await context.write(b"open")
        await asyncio.get_running_loop().create_future()

    def _store(self, message: bytes) -> None:
        os.write(self._log, message)
        os.fdatasync(self._log)


async def _serve(kind: str, file: Path) -> None:
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    if kind == "replay":
        handlers = {"Replay": grpc.unary_stream_rpc_method_handler(_replay(file))}
    else:
        relay = _Relay(file)
        handlers = {
            "Publish": grpc.stream_stream_rpc_method_handler(relay.publish),
            "Subscribe": grpc.unary_stream_rpc_method_handler(relay.subscribe),
        }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], Path(sys.argv[2])))
