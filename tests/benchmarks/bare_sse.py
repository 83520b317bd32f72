"""What lavant's server-sent events are compared with: a starlette response of ready bytes, from memory."""

import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

PIECE = 1 << 20  # about what a frame of 256 KiB is as text


def main(file: Path) -> None:
    data = file.read_bytes()
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(body(), media_type="text/event-stream")

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    host, port = listening.getsockname()
    print(f"{host}:{port}", flush=True)
    app = Starlette(routes=[Route("/", stream)])
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run([listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
