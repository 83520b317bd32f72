"""Arize Phoenix with SQLite: the best-known server that takes OTLP over gRPC and runs on one machine.

It answers an export before it has stored the spans, so they are counted in its database.
"""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from benchmarks.kit.process import Process, free_address, process
from benchmarks.peers.base import UnavailableError
from benchmarks.peers.programs import run

PACKAGE = "arize-phoenix"
HOME = Path.home() / ".cache" / "lavant-bench" / "phoenix"  # a virtual environment, kept: the package is large
_PROGRAM = HOME / "bin" / "phoenix"


def install() -> None:
    """Install it, in an environment of its own; raise UnavailableError if that fails."""
    if not _PROGRAM.exists():
        run(sys.executable, "-m", "venv", str(HOME))
        run(str(HOME / "bin" / "pip"), "install", "--quiet", PACKAGE)


@asynccontextmanager
async def serve(folder: Path) -> AsyncIterator[Process]:
    """Run it until the block's end, with its data in a folder."""
    if not _PROGRAM.exists():
        raise UnavailableError(f"{PACKAGE} is not installed")
    grpc, http = free_address(), free_address()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": http.split(":")[1],
        "PHOENIX_GRPC_PORT": grpc.split(":")[1],
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    async with process(str(_PROGRAM), "serve", folder=folder, address=grpc, environment=environment) as server:
        yield server


async def stored(folder: Path, count: int) -> None:
    """Wait until so many spans are stored."""
    with closing(sqlite3.connect(folder / "phoenix.db")) as database:
        while database.execute("SELECT count(*) FROM spans").fetchone()[0] < count:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(0.02)
