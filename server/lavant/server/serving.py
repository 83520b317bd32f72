"""Serving in this process, from its start to the signal that ends it."""

import asyncio
import signal

import structlog

from lavant.server.app import running
from lavant.server.settings import Settings

_log = structlog.get_logger(__name__)


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`, then drain; says one line on stdout once it serves. Raises StartError."""
    stop = stop or asyncio.Event()
    stop_on_signals(stop)
    async with running(settings) as app:
        print(f"lavant serving grpc={app.address} http={app.http_address}", flush=True)
        await stop.wait()
        _log.info("draining", calls=len(app.calls))


def stop_on_signals(stop: asyncio.Event) -> None:
    """Have SIGTERM and SIGINT ask to stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
