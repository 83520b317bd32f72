"""Real servers for tests: in this process with a clock of the test's, or in one of their own to be killed."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import IO, TYPE_CHECKING, Any

import grpc
from grpc import aio

from lavant.server.app.lifecycle import App
from lavant.server.app.settings import Settings
from lavant.server.app.startup import running
from lavant.server.clock import Clock
from lavant.v1.access_service_pb2_grpc import AccessServiceStub
from lavant.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from lavant.v1.event_service_pb2_grpc import EventServiceStub
from lavant.v1.rule_service_pb2_grpc import RuleServiceStub
from lavant.v1.run_service_pb2_grpc import RunServiceStub
from lavant.v1.score_service_pb2_grpc import ScoreServiceStub
from support import leaks
from support.credentials import authorized
from support.forks import Fork, can_fork

if TYPE_CHECKING:
    from lavant.v1.access_service_pb2_grpc import AccessServiceAsyncStub
    from lavant.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from lavant.v1.event_service_pb2_grpc import EventServiceAsyncStub
    from lavant.v1.rule_service_pb2_grpc import RuleServiceAsyncStub
    from lavant.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from lavant.v1.score_service_pb2_grpc import ScoreServiceAsyncStub

START_LIMIT = 20.0
STOP_LIMIT = 20.0
# Little is sent ahead of what a client reads, and every channel is a connection of its own.
CHANNEL_OPTIONS = [
    ("grpc.http2.lookahead_bytes", 65536),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stubs:
    """The generated stubs on one connection."""

    channel: aio.Channel
    runs: "RunServiceAsyncStub"
    events: "EventServiceAsyncStub"
    rules: "RuleServiceAsyncStub"
    evaluations: "EvaluationServiceAsyncStub"
    scores: "ScoreServiceAsyncStub"
    access: "AccessServiceAsyncStub"


@asynccontextmanager
async def connected(
    target: str, credentials: grpc.ChannelCredentials | None = None, *, bearer: str = ""
) -> AsyncIterator[Stubs]:
    """A connection to a server, closed at the block's end; over TLS with `credentials`. Every call carries `bearer`."""
    settings: Any = {"options": CHANNEL_OPTIONS, "interceptors": authorized(bearer) if bearer else []}
    opened = (
        aio.insecure_channel(target, **settings)
        if credentials is None
        else aio.secure_channel(target, credentials, **settings)
    )
    async with opened as channel:
        yield Stubs(
            channel=channel,
            runs=RunServiceStub(channel),
            events=EventServiceStub(channel),
            rules=RuleServiceStub(channel),
            evaluations=EvaluationServiceStub(channel),
            scores=ScoreServiceStub(channel),
            access=AccessServiceStub(channel),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server in this process, with a connection to it."""

    app: App
    target: str
    stubs: Stubs


def free_address() -> str:
    """An address that nobody listens on, for a server that is to be found there again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def settings_for(folder: Path, **overrides: Any) -> Settings:
    """Settings of a server that keeps its store in a folder and listens on a free port."""
    return Settings(
        **{
            "listen": "127.0.0.1:0",
            "http": "off",
            "admin": "off",
            "store": f"sqlite:///{folder}/lavant.db",
            **overrides,
        }
    )


@asynccontextmanager
async def serving(folder: Path, *, clock: Clock | None = None, **overrides: Any) -> AsyncIterator[Server]:
    """Serve from a store in a folder; the same folder again is a restart.

    The stubs use TLS with `credentials`, and call with the first key, if the server creates one.
    """
    credentials: grpc.ChannelCredentials | None = overrides.pop("credentials", None)
    async with (
        running(settings_for(folder, **overrides), clock=clock, random=Random(1)) as app,
        connected(app.address, credentials, bearer=app.first_key) as stubs,
    ):
        yield Server(app=app, target=app.address, stubs=stubs)


class ServerProcess:
    """A server in a process of its own, on a port and a store that survive its death: a file, by default."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        store: str = "",
        http: str = "off",
        admin: str = "off",
    ) -> None:
        self.target = ""
        self.environment = dict(environment or {})
        self.http = http
        self.admin = admin
        self._store = store or f"sqlite:///{folder}/lavant.db"
        self._process: asyncio.subprocess.Process | Fork | None = None
        self._log: Path | None = None  # a file that the log goes to

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *flags: str, stderr: IO[bytes] | None = None) -> None:
        """Start, or start again on the same port; the log goes to `stderr`, or to where this process's goes."""
        listen = ("--listen", self.target or "127.0.0.1:0")
        arguments = (*listen, "--http", self.http, "--admin", self.admin, "--store", self._store, *flags)
        environment = {**os.environ, **self.environment}
        self._log = None if stderr is None else Path(stderr.name)
        if can_fork(environment):
            log = None if stderr is None else stderr.fileno()
            self._process = await Fork.started("lavant.server.__main__:main", arguments, environment, stderr=log)
        else:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lavant.server", *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_LIMIT):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("lavant serving grpc="), f"the server said {line!r}"
        self.target = line.split()[2].removeprefix("grpc=")
        self.admin = line.split()[4].removeprefix("admin=")

    async def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(START_LIMIT):
            return leaks.printed((await self._process.stdout.readline()).decode())

    async def kill(self) -> None:
        """End without warning, as a crash does; harmless if it never began."""
        if self._process is not None:
            await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask to drain and stop; returns the exit status."""
        return await self._end(signal.SIGTERM)

    async def died(self) -> int:
        """Wait until it ends by itself; returns the exit status."""
        assert self._process is not None
        async with asyncio.timeout(STOP_LIMIT):
            status = await self._process.wait()
        if self._log is not None and self._log.is_file():  # what else it writes is captured with this process's
            leaks.written(await asyncio.to_thread(self._log.read_text, errors="replace"))
        return status

    async def restart(self, *flags: str) -> None:
        """Kill and start again."""
        await self.kill()
        await self.start(*flags)

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.died()
