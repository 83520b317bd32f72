"""uvicorn within a process that is not its own: it listens where it is told to and leaves signals alone."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from lavant.server.http.connection import Connection

_LONGEST_HEAD = 32 << 10


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to whoever runs the process."""
        yield


class Listener:
    """Serves an application over HTTP/1.1 on one address.

    A peer that takes nothing for `stall_limit` seconds is cut off. One that was silent for `ping_interval` is probed,
    and cut off if it does not answer within `ping_timeout`: it has vanished.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_connections: int,
        stall_limit: float = 60,
        ping_interval: float = 30,
        ping_timeout: float = 10,
    ) -> None:
        self._ping_interval, self._ping_timeout = ping_interval, ping_timeout
        connection: Any = partial(Connection, stall_limit=stall_limit)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=connection,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                limit_concurrency=max_connections,
                timeout_keep_alive=15,
                h11_max_incomplete_event_size=_LONGEST_HEAD,
                timeout_graceful_shutdown=1,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int) -> int:
        """Take the address, before anything is served; return the port. Raises OSError if it cannot be had."""
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _probe_silent_peers(bound, self._ping_interval, self._ping_timeout)
        try:
            bound.bind(address)
            bound.listen(1024)
        except OSError:
            bound.close()
            raise
        bound.setblocking(False)
        self._socket = bound
        return int(bound.getsockname()[1])

    async def start(self) -> None:
        """Serve from here on."""
        sockets: Any = [self._socket]
        self._serving = asyncio.create_task(self._server.serve(sockets))

    async def stop(self) -> None:
        """Take no more connections, and cut off what is left after a second."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._socket is not None:
            self._socket.close()


def _probe_silent_peers(bound: socket.socket, interval: float, timeout: float) -> None:
    """Have TCP probe the peers of the connections that a socket accepts: they inherit its options.

    Two probes within the timeout, and as long for what was written and not acknowledged. Systems without one of
    the options keep their own times for it.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": round(interval),
        "TCP_KEEPINTVL": max(1, round(timeout / 2)),
        "TCP_KEEPCNT": 2,
        "TCP_USER_TIMEOUT": round((interval + timeout) * 1_000),
    }
    for name, value in options.items():
        if hasattr(socket, name):
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
