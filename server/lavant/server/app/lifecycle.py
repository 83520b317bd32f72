"""Lifecycle of a server: start, health, drain, stop."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2

from lavant.server.app.settings import OFF, Settings, host_of
from lavant.server.errors import StartError
from lavant.server.http.listener import Listener
from lavant.server.observability.prometheus import PrometheusMetrics
from lavant.server.streaming.calls import Calls
from lavant.v1 import (
    access_service_pb2,
    evaluation_service_pb2,
    event_service_pb2,
    rule_service_pb2,
    run_service_pb2,
    score_service_pb2,
)

_log = structlog.get_logger(__name__)

_STOP_GRACE = 1.0  # seconds for calls to end after they were cut
SERVICES = tuple(
    service.full_name
    for module in (
        run_service_pb2,
        event_service_pb2,
        rule_service_pb2,
        evaluation_service_pb2,
        score_service_pb2,
        access_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """Health service with the list of all services, which the base class does not implement."""

    async def List(  # noqa: N802
        self, _: health_pb2.HealthListRequest, context: aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        """Return the state of all services."""
        response = health_pb2.HealthListResponse()
        for name in ("", *SERVICES):
            request = health_pb2.HealthCheckRequest(service=name)
            response.statuses[name].CopyFrom(await self.Check(request, context))
        return response


class App:
    """A server with its listeners; `address`, `http_address` and `admin_address` are known after `start`."""

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        server: aio.Server,
        health_service: Health,
        metrics: PrometheusMetrics,
        *,
        http: Mapping[str, Listener],
        admin: Listener | None,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        self.calls = calls
        self.metrics = metrics
        self._settings = settings
        self._server = server
        self._health = health_service
        self._http = http
        self._admin = admin
        self._credentials = credentials
        self.address = ""
        self.first_key = ""  # the text of the key that `init_key` created
        self.http_address = OFF
        self.otlp_address = OFF
        self.otlp_http_address = OFF
        self.admin_address = OFF

    async def start(self) -> None:
        """Listen and report SERVING. Raises StartError if an address is not available."""
        self.address = self._add_port(self._settings.listen)
        if self._settings.otlp != OFF:
            self.otlp_address = self._add_port(self._settings.otlp)
        bound = {name: _bind(listener, self._settings, name) for name, listener in self._http.items()}
        self.http_address, self.otlp_http_address = bound.get("http", OFF), bound.get("otlp_http", OFF)
        if self._admin is not None:
            self.admin_address = _bind(self._admin, self._settings, "admin")
        for listener in self._http.values():
            await listener.start()
        await self._server.start()
        if self._admin is not None:
            await self._admin.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def _add_port(self, address: str) -> str:
        """Listen for gRPC on an address; return it with the port that was picked."""
        try:
            _check_address(address, reuse_port=self._settings.reuse_port)
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "is another process listening there?"
            raise StartError(f"cannot listen on {address}: {reason}") from None
        return f"{host_of(address)}:{port}"

    async def stop(self) -> None:
        """Drain, then stop: refuse new streams, and let open ones end.

        Readers receive an end frame with DRAINING and resume on another replica or later, without a gap. Calls
        that have not ended after `drain_timeout` are cut.
        """
        await self._health.enter_graceful_shutdown()
        self.calls.drain()
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await self.calls.ended()
        except TimeoutError:
            _log.warning("drain_timed_out", calls=len(self.calls))
        for listener in self._http.values():
            await listener.stop()
        await self._server.stop(_STOP_GRACE)
        try:
            async with asyncio.timeout(_STOP_GRACE):
                await self.calls.ended()
        except TimeoutError:
            _log.error("calls_not_ended", calls=len(self.calls))
        if self._admin is not None:
            await self._admin.stop()


def _bind(listener: Listener, settings: Settings, name: str) -> str:
    """Bind a listener to the address of a setting; return it with the port that was picked."""
    address, flag = getattr(settings, name), f"--{name.replace('_', '-')}"
    host, _, port = address.rpartition(":")
    try:
        return f"{host}:{listener.bind(host.strip('[]'), int(port))}"
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror}; choose another with {flag}, or off") from None


def _check_address(address: str, *, reuse_port: bool) -> None:
    """Raise OSError if an address is not available: gRPC itself reports the reason on stderr only."""
    host, port = host_of(address).strip("[]"), int(address.rpartition(":")[2])
    failure: OSError | None = None
    for family, kind, protocol, _, bound in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
            try:
                probe.bind(bound)
            except OSError as error:
                failure = error
            else:
                return
    if failure is not None:
        raise failure
