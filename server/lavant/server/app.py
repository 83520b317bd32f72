"""Composition: from settings to a server that serves."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random, SystemRandom

import apsw
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lavant.server.abandonment import AbandonmentWatch
from lavant.server.clock import Clock, SystemClock
from lavant.server.errors import StartError
from lavant.server.lifecycle import Calls
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.settings import STORE_KEY_ID, Settings
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable
from lavant.server.streaming.cursors import Cursors
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.places import Places
from lavant.server.streaming.signing import Signer
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1 import event_service_pb2, run_service_pb2

_log = structlog.get_logger(__name__)

_STOP_GRACE = 1.0  # seconds for unary calls that are under way when all streams have ended
_MAX_STREAMS_PER_CONNECTION = 100  # unbounded, rapid resets of one client starve the others
_MAX_REQUEST_BYTES = 4 << 20
_SERVICES = tuple(
    service.full_name
    for module in (run_service_pb2, event_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)


class App:
    """A serving lavant: where it listens, and how it stops."""

    def __init__(
        self, settings: Settings, calls: Calls, server: aio.Server, health_service: health.aio.HealthServicer
    ) -> None:
        self.calls = calls
        self._settings = settings
        self._server = server
        self._health = health_service
        self.address = ""

    async def start(self) -> None:
        """Listen, and say SERVING. Raises StartError if the address cannot be had."""
        try:
            _check_address(self._settings)
            port = self._server.add_insecure_port(self._settings.listen)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "is another process there?"
            raise StartError(f"cannot listen on {self._settings.listen}: {reason}") from None
        self.address = f"{self._settings.host}:{port}"
        await self._server.start()
        for service in ("", *_SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Drain: take no more streams, let those that are open end themselves, then stop.

        Their readers get a StreamEnd with DRAINING and resume elsewhere or later, without a gap. What
        has not ended after `drain_timeout` is cut.
        """
        await self._health.enter_graceful_shutdown()
        self.calls.drain()
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await self.calls.ended()
        except TimeoutError:
            _log.warning("drain_timed_out", calls=len(self.calls))
        await self._server.stop(_STOP_GRACE)
        await self.calls.ended()


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock | None = None, random: Random | None = None
) -> AsyncIterator[App]:
    """Serve for the length of the block, then drain and let go of the store.

    Raises StartError if the store cannot be opened, or the address cannot be had.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        engine = await _open_engine(settings, clock)
        stack.push_async_callback(engine.close)
        places = Places(engine.leases, clock)
        stack.push_async_callback(places.close)
        await stack.enter_async_context(AbandonmentWatch(engine, clock))
        app = _compose(settings, engine, places, clock, random or SystemRandom())
        stack.push_async_callback(app.stop)
        await app.start()
        yield app


def _check_address(settings: Settings) -> None:
    """Raise OSError if nothing can listen there: gRPC would tell why on stderr alone, in its own words."""
    host, port = settings.host.strip("[]"), int(settings.listen.rpartition(":")[2])
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                failure = error
            else:
                return
    if failure is not None:
        raise failure


async def _open_engine(settings: Settings, clock: Clock) -> SQLiteEngine:
    try:
        return await SQLiteEngine.open(settings.store_path, clock=clock)
    except StoreUnusable as error:
        raise StartError(str(error)) from error
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the store {settings.store_path}: {error}") from error


def _compose(settings: Settings, engine: Engine, places: Places, clock: Clock, random: Random) -> App:
    calls = Calls(settings.max_streams)
    signer = _signer(settings, engine)
    streaming = Streaming(
        engine=engine,
        hub=Hub(engine, settings.tail_bytes),
        places=places,
        tokens=ResumeTokens(signer, engine.identity.epoch),
        calls=calls,
        clock=clock,
        random=random,
        max_age=settings.max_stream_age,
        stall_limit=settings.write_timeout,
    )
    cursors = Cursors(signer, engine.identity.epoch)
    watcher = RunWatcher(engine, cursors, calls, clock, settings.write_timeout)
    publisher = Publisher(engine=engine, calls=calls, stall_limit=settings.write_timeout)
    server = aio.server(options=_server_options(settings))
    server.add_generic_rpc_handlers(
        (
            RunService(engine, cursors, calls, clock, watcher).handlers(),
            EventService(streaming, publisher).handlers(),
        )
    )
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if settings.reflection:
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return App(settings, calls, server, health_service)


def _signer(settings: Settings, engine: Engine) -> Signer:
    """Keys from the settings sign, if there are any; the store's own key verifies in any case."""
    keys = {key_id: bytes.fromhex(key) for key_id, key in settings.token_keys.items()}
    return Signer({**keys, STORE_KEY_ID: engine.identity.secret})


def _server_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
