"""HTTP/1.1 listener: uvicorn within a process that handles signals itself, with limits on idle peers."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from lavant.server.auth.mtls import names_of_http_peer
from lavant.server.errors import ServiceError
from lavant.server.streaming.peers import PeerLimit

HEAD_LIMIT = 20.0  # seconds from the start of a connection, or the end of a response, to a complete request head
CERTIFICATE_NAMES = "certificate_names"  # of the client, in the state of an ASGI scope
PEER_CERTIFICATE = "certificate"  # of the client, in DER, in the same
_LONGEST_HEAD = 32 << 10
_HANDSHAKE_LIMIT = 10  # seconds
_REFUSED_POLITELY = 100  # connections beyond the maximum that are answered with 503; more are closed at once


class Connection(H11Protocol):
    """HTTP/1.1 connection that is aborted if its peer accepts nothing for `stall_limit` seconds, or sends no request.

    uvicorn itself waits without limit in both cases, also on a closed connection with unsent data. A peer that
    reads slowly, but reads, is not cut.
    """

    def __init__(
        self,
        *args: Any,
        stall_limit: float,
        max_connections: int,
        peers: PeerLimit,
        head_limit: float = HEAD_LIMIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections = max_connections
        self._peers = peers
        self._address: str | None = None  # once it is counted
        self._stall_limit = stall_limit
        self._head_limit = head_limit
        self._stalled: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request, or close the connection if there are too many."""
        super().connection_made(transport)
        if certificate := transport.get_extra_info("peercert"):
            der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self.app_state = {CERTIFICATE_NAMES: names_of_http_peer(certificate), PEER_CERTIFICATE: der}
        if len(self.connections) > self._max_connections + _REFUSED_POLITELY:
            transport.abort()  # silent connections would hold file descriptors that other listeners need
            return
        address = self.client[0] if self.client else ""
        try:
            self._peers.enter(address)
        except ServiceError:  # one address must not keep out all others
            transport.abort()
        else:
            self._address = address
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        for timer in (self._stalled, self._idle):
            if timer is not None:
                timer.cancel()
        if self._address is not None:
            self._peers.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start to wait for the peer to read."""
        super().pause_writing()
        self._await_progress()

    def resume_writing(self) -> None:
        """Stop to wait: the peer has read."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _await_head(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = self.loop.call_later(self._head_limit, self._cut_if_idle)

    def _cut_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _await_progress(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._stall_limit, self._cut_if_stalled, left)

    def _cut_if_stalled(self, left_before: int) -> None:
        if self.transport.get_write_buffer_size() < left_before:
            self._await_progress()
        else:
            self.transport.abort()


class _Server(uvicorn.Server):
    """Server whose connections have `_HANDSHAKE_LIMIT` seconds for the TLS handshake, if `tls` is given."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. uvicorn's own method has no limit of handshakes, and takes files as certificates."""

        def new_connection() -> asyncio.Protocol:
            protocol: Any = self.config.http_protocol_class
            connection: asyncio.Protocol = protocol(config=self.config, server_state=self.server_state, app_state={})
            return connection

        limit = None if self._tls is None else _HANDSHAKE_LIMIT
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                new_connection, sock=bound, ssl=self._tls, ssl_handshake_timeout=limit, backlog=self.config.backlog
            )
            for bound in sockets or ()
        ]
        self.started = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


class Listener:
    """Serves an application over HTTP/1.1 on one address, with TLS if `tls` is given.

    It accepts `max_connections` connections, a `peer_share` of them from one address. A peer that accepts nothing for
    `stall_limit` seconds is cut. One that is silent for `ping_interval` seconds is probed by TCP, and cut if it does
    not answer within `ping_timeout` seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_connections: int,
        peer_share: float = 1,
        tls: ssl.SSLContext | None = None,
        stall_limit: float = 60,
        ping_interval: float = 30,
        ping_timeout: float = 10,
    ) -> None:
        self._ping_interval, self._ping_timeout = ping_interval, ping_timeout
        connection: Any = partial(
            Connection,
            stall_limit=stall_limit,
            max_connections=max_connections,
            peers=PeerLimit(max_connections, peer_share, "connections", "connections are open"),
        )
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
            ),
            tls,
        )
        self._serving: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    def bind(self, host: str, port: int) -> int:
        """Bind the address before anything is served; return the port. Raises OSError if it is not available."""
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
        """Start to serve."""
        sockets: Any = [self._socket]
        self._serving = asyncio.create_task(self._server.serve(sockets))

    async def stop(self) -> None:
        """Accept no more connections, and cut open ones after a second."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving
        if self._socket is not None:
            self._socket.close()


def _probe_silent_peers(bound: socket.socket, interval: float, timeout: float) -> None:
    """Enable TCP keepalive on a listening socket; accepted connections inherit its options.

    There are two probes within the timeout, and the same limit for data that is not acknowledged. Systems
    without one of the options use their own times.
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
