"""Several processes that serve on one port, where the store is shared: one process uses one core."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
import uvloop

from lavant.server.errors import StartError
from lavant.server.logs import configure_logs
from lavant.server.serving import serve, stop_on_signals
from lavant.server.settings import OFF, Settings, host_of

_PAUSE = 1.0  # seconds before a worker that died is replaced

_log = structlog.get_logger(__name__)


async def supervise(settings: Settings) -> None:
    """Keep `settings.workers` processes serving until SIGTERM or SIGINT; then all drain. Raises StartError.

    They share the port of gRPC. Each has a port of its own for HTTP: the given one, the next one, and so on. One
    that dies is replaced; all drain if this process dies.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    with _reserved(settings) as port:
        shared = settings.model_copy(update={"listen": f"{settings.host}:{port}"})
        workers = [_Worker(_for_worker(shared, number)) for number in range(settings.workers)]
        try:
            lines = [await worker.start() for worker in workers]
            print(lines[0], flush=True)
            await asyncio.gather(*(worker.keep(stop) for worker in workers))
        finally:
            await asyncio.gather(*(worker.end() for worker in workers))


class _Worker:
    """A process that serves, and the next one in its place."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Start it, and return the line that it says once it serves."""
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise StartError("a worker could not start")
        return line.decode().rstrip()

    async def keep(self, stop: asyncio.Event) -> None:
        """Replace it whenever it dies, until `stop`."""
        stopped = asyncio.create_task(stop.wait())
        while not await self._died_before(stopped):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(stopped), _PAUSE)
            if not stopped.done():
                with suppress(StartError):
                    await self.start()

    async def end(self) -> None:
        """Have it drain, and wait until it has."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    async def _died_before(self, stopped: "asyncio.Task[bool]") -> bool:
        """Wait until it dies or all are stopped; tells whether the latter."""
        assert self._process is not None  # noqa: S101
        died = asyncio.create_task(self._process.wait())
        await asyncio.wait((stopped, died), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            _log.error("worker_died", pid=self._process.pid, status=died.result())
        died.cancel()
        return stopped.done()


def work() -> int:
    """Serve as one of several, as the settings on stdin say, until it is closed."""
    settings = Settings.model_validate_json(sys.stdin.readline())
    configure_logs(settings.log_level, settings.log_format)
    try:
        uvloop.run(_serve_while_wanted(settings))
    except StartError as error:
        print(f"lavant: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve_while_wanted(settings: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    await serve(settings, stop)


def _for_worker(settings: Settings, number: int) -> Settings:
    host, _, port = settings.http.rpartition(":")
    if settings.http == OFF or port == "0":
        return settings
    return settings.model_copy(update={"http": f"{host}:{int(port) + number}"})


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """Hold the port, so that it stays the same one when no worker listens."""
    host, port = host_of(settings.listen).strip("[]"), int(settings.listen.rpartition(":")[2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((host, port))
        except OSError as error:
            raise StartError(f"cannot listen on {settings.listen}: {error.strerror}") from None
        yield holder.getsockname()[1]


if __name__ == "__main__":
    raise SystemExit(work())
