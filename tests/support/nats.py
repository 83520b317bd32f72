"""Real NATS servers for tests, on loopback, to be killed and started again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path

from lavant.server.store.jetstream import Connection, Location, examine
from lavant.server.store.jetstream.connection import Refused
from support.process import stop

_START_LIMIT = 30.0
NATS_SERVER = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or "nats-server"
_names = count(1)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class NatsServer:
    """A nats-server with a folder and a port of its own, which survive its death."""

    def __init__(self, folder: Path, port: int, *, max_payload: str = "8MB", more: str = "") -> None:
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nats.conf").write_text(
            f"""
            listen: "127.0.0.1:{port}"
            server_name: {json.dumps(folder.name)}
            max_payload: {max_payload}
            jetstream {{ store_dir: {json.dumps(str(folder))}, sync_interval: always }}
            {more}
            """
        )

    def start(self) -> None:
        """Start, or start again, without waiting."""
        with (self._folder / "nats.log").open("ab") as log:
            command = [NATS_SERVER, "-c", str(self._folder / "nats.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it answers."""
        give_up_at = time.monotonic() + _START_LIMIT
        while time.monotonic() < give_up_at:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=1) as probe:
                    if probe.recv(4):
                        return
            except OSError:
                time.sleep(0.01)
        raise TimeoutError((self._folder / "nats.log").read_text())

    def kill(self) -> None:
        """End without warning; harmless when repeated."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop every thread of it, until `go_on`."""
        assert self._process is not None
        stop(self._process.pid)

    def go_on(self) -> None:
        """Move again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def fresh_location(servers: Sequence[NatsServer]) -> Location:
    """A store of its own on some servers."""
    return Location(tuple(f"nats://{server.address}" for server in servers), f"test-{next(_names)}")


async def delete_streams(location: Location) -> None:
    """Delete a store."""
    connection = await Connection.open(location)
    for stream in (*location.log_streams, location.lease_stream, location.meta_stream):
        with suppress(Refused):  # it may not have come to be
            await connection.api(f"STREAM.DELETE.{stream}")
    await connection.close()


@asynccontextmanager
async def without_streams(location: Location) -> AsyncIterator[None]:
    """Delete a store's streams at the block's end, so that its server has few."""
    try:
        yield
    finally:
        await delete_streams(location)


@asynccontextmanager
async def emptied(location: Location) -> AsyncIterator[None]:
    """Empty a store at the block's end: for the next test, which need not wait for streams to be made."""
    try:
        yield
    finally:
        connection = await Connection.open(location)
        for stream in (*location.log_streams, location.lease_stream):
            await connection.api(f"STREAM.PURGE.{stream}")
        await connection.close()


async def examined(location: Location) -> list[str]:
    """What is wrong with a store."""
    connection = await Connection.open(location)
    try:
        return await examine(connection, location)
    finally:
        await connection.close()


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A single server, started."""
    server = NatsServer(folder / "nats", free_ports(1)[0])
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """A cluster, started, in which every stream can have as many replicas."""
    ports = free_ports(3 * size)
    monitors = ports[2 * size :]
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports[size : 2 * size])
    servers = [
        NatsServer(
            folder / f"nats-{index}",
            ports[index],
            more=f"""
            http: "127.0.0.1:{monitors[index]}"
            cluster {{ name: test, listen: "127.0.0.1:{ports[size + index]}", routes: [{routes}] }}
            """,
        )
        for index in range(size)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        for monitor in monitors:
            await_health(monitor)
        yield servers
    finally:
        for server in servers:
            server.kill()


def await_health(monitor: int) -> None:
    """Wait until a server has found the leader of its cluster."""
    give_up_at = time.monotonic() + _START_LIMIT
    while time.monotonic() < give_up_at:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/healthz", timeout=1):
                return
        except OSError:  # also what is no 200
            time.sleep(0.02)
    raise TimeoutError("the cluster has no leader")
