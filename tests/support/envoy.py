"""A real Envoy with the configuration that is shipped; only names and ports are this machine's."""

import asyncio
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from support.server import START_LIMIT, STOP_LIMIT, free_address

SHIPPED = Path(__file__).parents[2] / "server" / "deploy" / "envoy.yaml"


class Envoy:
    """Envoy before replicas, in a process of its own, on ports that survive its death.

    `grpc`, `http` and `admin` are the replicas' addresses. Without a folder of certificates, there is no TLS. Pages of
    `origins` may make gRPC-Web calls.
    """

    def __init__(
        self,
        folder: Path,
        grpc: Sequence[str],
        http: Sequence[str],
        admin: Sequence[str],
        certificates: Path | None = None,
        origins: Sequence[str] = (),
    ) -> None:
        self._origins = origins
        self._certificates = certificates
        self.target, self.http, self.admin = free_address(), free_address(), free_address()
        self.file = folder / "envoy.yaml"
        self.file.write_text(yaml.safe_dump(self._configuration(grpc, http, admin)))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and wait until it listens."""
        program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
        self._process = await asyncio.create_subprocess_exec(
            *(program, "--config-path", str(self.file), "--log-level", "error"),
            *("--use-dynamic-base-id", "--concurrency", "1"),
        )
        await self._answers("/ready", {"LIVE"})

    async def kill(self) -> None:
        """End without warning."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        async with asyncio.timeout(STOP_LIMIT):
            await self._process.wait()

    async def healthy(self, count: int) -> None:
        """Wait until so many replicas get calls."""
        healthy = {f"cluster.{name}.membership_healthy: {count}" for name in ("lavant", "lavant_http")}
        await self._answers("/stats?filter=membership_healthy", healthy)

    async def _answers(self, path: str, lines: set[str]) -> None:
        async with asyncio.timeout(START_LIMIT):
            while not lines <= set((await self._ask(path)).splitlines()):  # noqa: ASYNC110 - it has no event for it
                await asyncio.sleep(0.02)

    async def _ask(self, path: str) -> str:
        """Ask the administrator's port; nothing while it is not there."""
        host, port = self.admin.split(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    def _configuration(self, grpc: Sequence[str], http: Sequence[str], admin: Sequence[str]) -> Any:
        text = SHIPPED.read_text()
        shipped = yaml.safe_load(text.replace("/etc/envoy/tls", str(self._certificates)))
        listeners, clusters = shipped["static_resources"]["listeners"], shipped["static_resources"]["clusters"]
        if self._certificates is None:
            for place in (*(listener["filter_chains"][0] for listener in listeners), *clusters):
                del place["transport_socket"]
        for route in _routes(listeners[1]):
            for policy in route.get("typed_per_filter_config", {}).values():
                policy["allow_origin_string_match"] = [{"exact": origin} for origin in self._origins]
        for listener, address in zip(listeners, (self.target, self.http), strict=True):
            listener["address"] = _address(address)
        for cluster, addresses in zip(clusters, (grpc, http), strict=True):
            cluster["type"] = "STATIC"
            cluster["load_assignment"]["endpoints"] = [
                {"lb_endpoints": [{"endpoint": {"address": _address(address)}} for address in addresses]}
            ]
        for place, address in zip(clusters[1]["load_assignment"]["endpoints"][0]["lb_endpoints"], admin, strict=True):
            place["endpoint"]["health_check_config"] = {"port_value": int(address.split(":")[1])}
        return {**shipped, "admin": {"address": _address(self.admin)}}


def _address(address: str) -> dict[str, Any]:
    host, port = address.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _routes(listener: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the routes of a listener."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    for host in manager["route_config"]["virtual_hosts"]:
        yield from host["routes"]
