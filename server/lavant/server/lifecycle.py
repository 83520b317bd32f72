"""The life of a server: start, health, drain, stop."""

import asyncio
import socket

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2

from lavant.server.errors import StartError
from lavant.server.http.listener import Listener
from lavant.server.observability.metrics import Metrics
from lavant.server.settings import OFF, Settings
from lavant.server.streaming.calls import Calls
from lavant.v1 import evaluation_service_pb2, event_service_pb2, run_service_pb2, score_service_pb2

_log = structlog.get_logger(__name__)

_STOP_GRACE = 1.0  # seconds for calls to end that are cut off
SERVICES = tuple(
    service.full_name
    for module in (run_service_pb2, event_service_pb2, evaluation_service_pb2, score_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)


class App:
    """A serving lavant: where it listens, and how it stops."""

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        server: aio.Server,
        health_service: health.aio.HealthServicer,
        metrics: Metrics,
        listener: Listener | None,
    ) -> None:
        self.calls = calls
        self.metrics = metrics
        self._settings = settings
        self._server = server
        self._health = health_service
        self._listener = listener
        self.address = ""
        self.http_address = OFF

    async def start(self) -> None:
        """Listen, and say SERVING. Raises StartError if the address cannot be had."""
        try:
            _check_address(self._settings)
            port = self._server.add_insecure_port(self._settings.listen)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "is another process there?"
            raise StartError(f"cannot listen on {self._settings.listen}: {reason}") from None
        self.address = f"{self._settings.host}:{port}"
        if self._listener is not None:
            self.http_address = _bind(self._listener, self._settings.http)
            await self._listener.start()
        await self._server.start()
        for service in ("", *SERVICES):
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
        if self._listener is not None:
            await self._listener.stop()
        await self._server.stop(_STOP_GRACE)
        try:
            async with asyncio.timeout(_STOP_GRACE):
                await self.calls.ended()
        except TimeoutError:
            _log.error("calls_left_behind", calls=len(self.calls))


def _bind(listener: Listener, address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        return f"{host}:{listener.bind(host.strip('[]'), int(port))}"
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror}; give --http another, or off") from None


def _check_address(settings: Settings) -> None:
    """Raise OSError if nothing can listen there: gRPC would tell why on stderr alone, in its own words."""
    host, port = settings.host.strip("[]"), int(settings.listen.rpartition(":")[2])
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(settings.workers > 1))
            try:
                probe.bind(address)
            except OSError as error:
                failure = error
            else:
                return
    if failure is not None:
        raise failure
