"""The systems by name, and those of them that can be run here."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.kit.process import Process
from benchmarks.kit.rounds import Bench
from benchmarks.peers.base import Peer, UnavailableError

_CLASSES = {
    "lavant": "lavant:LavantClient",
    "lavant stubs": "lavant:Lavant",
    "bare": "bare:Bare",
    "bare + SQLite": "bare:BareDurable",
    "redis": "redis:Redis",
    "postgres": "postgres:Postgres",
    "nats": "nats:Nats",
    "durable-streams": "durable_streams:DurableStreams",
}
_OWN = ("lavant", "lavant stubs", "bare", "bare + SQLite")
_GROUP_FILE = Path(__file__).parents[3] / "pyproject.toml"
_skipped: set[str] = set()


def system(name: str) -> type[Peer]:
    """Return the system of this name; raise UnavailableError if its client library is not installed."""
    module, name_of_class = _CLASSES[name].split(":")
    try:
        peer: type[Peer] = getattr(import_module(f"benchmarks.peers.{module}"), name_of_class)
    except ModuleNotFoundError as error:
        raise UnavailableError(f"the Python package {error.name} is not installed") from error
    return peer


def available(bench: Bench, *names: str) -> Iterator[tuple[str, type[Peer]]]:
    """Yield those systems that can be run here, and print why another cannot. Small loads install nothing."""
    for name in names if bench.products else [name for name in names if name in _OWN]:
        try:
            try:
                peer = system(name)
                peer.check()
            except UnavailableError:
                if bench.quick:
                    raise
                _install(name)
                peer = system(name)
                peer.check()
            yield name, peer
        except UnavailableError as error:
            if name not in _skipped:
                print(f"\n{name} is left out: {error}", flush=True)
            _skipped.add(name)


def _install(name: str) -> None:
    try:
        system(name)
    except UnavailableError:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--group", f"{_GROUP_FILE}:bench"]
        if subprocess.run(command, check=False).returncode:
            raise
    peer = system(name)
    try:
        peer.check()
    except UnavailableError:
        peer.install()


@dataclass(frozen=True, kw_only=True)
class Running:
    """System whose server runs, with a connection to it; `server` is None if its CPU is not measured."""

    peer: type[Peer]
    server: Process | None
    connection: Peer


def table_name(name: str) -> str:
    """Return a system's name in tables where no client library takes part: there, the stubs are lavant."""
    return name.removesuffix(" stubs")


@asynccontextmanager
async def running(bench: Bench, *names: str, width: int = 1) -> AsyncIterator[dict[str, Running]]:
    """Run those systems that can be run here until the block's end, connected for `width` calls at once."""
    async with AsyncExitStack() as stack:
        started = {}
        for name, peer in available(bench, *names):
            server = await stack.enter_async_context(peer.serve(bench.subfolder(name)))
            connection = await stack.enter_async_context(peer.connect(server.address, width=width))
            started[name] = Running(peer=peer, server=server, connection=connection)
        yield started
