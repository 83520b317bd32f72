"""ASGI applications on a real server, and readers of server-sent events."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    name: str
    data: str
    id: str


class _Server(uvicorn.Server):
    """Says when it is up, and leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving_web(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application with uvicorn; yield a client of it."""
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.is_up.wait()
            host, port = listener.getsockname()
            async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


async def frames_of(response: httpx.Response) -> AsyncIterator[Frame]:
    """Yield the events of a stream as they come; comments are no events."""
    name, data, last_id = "message", "", ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif field == "id":
            last_id = value
        elif not line and data:
            yield Frame(name, data, last_id)
            name, data = "message", ""


async def text_until_caught_up(response: httpx.Response) -> str:
    """Return the lines of a response, those of a stream up to the end of what is recorded: some never end."""
    text = ""
    lines: Any = response.aiter_lines()
    async with aclosing(lines):
        async for line in lines:
            text += f"{line}\n"
            if line == "event: caught_up":
                break
    return text
