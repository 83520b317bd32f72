"""Replicas on NATS servers, behind Envoy: all of them real, and each to be killed and started again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.envoy import Envoy
from support.nats import NatsServer, nats_cluster
from support.server import ServerProcess, free_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`target` and `http` are Envoy's addresses: whichever replica is well answers there."""

    nats: list[NatsServer]
    store: str
    replicas: list[ServerProcess]
    envoy: Envoy

    @property
    def target(self) -> str:
        """Where gRPC is served."""
        return self.envoy.target

    @property
    def http(self) -> str:
        """Where HTTP is served."""
        return self.envoy.http


@asynccontextmanager
async def running_cluster(folder: Path, replicas: int = 2) -> AsyncIterator[Cluster]:
    """Start all of it, and end it with the block."""
    with nats_cluster(folder) as nats:
        store = "nats://" + ",".join(server.address for server in nats)
        processes = [
            ServerProcess(folder, store=store, http=free_address(), admin=free_address()) for _ in range(replicas)
        ]
        envoy: Envoy | None = None
        try:
            for process in processes:
                await process.start()
            targets, http, admin = zip(*((one.target, one.http, one.admin) for one in processes), strict=True)
            envoy = Envoy(folder, targets, http, admin)
            await envoy.start()
            await envoy.healthy(replicas)
            yield Cluster(nats=nats, store=store, replicas=processes, envoy=envoy)
        finally:
            if envoy is not None:
                await envoy.kill()
            for process in processes:
                await process.kill()
