"""Three NATS servers with the configuration and the secrets as shipped; only ports and folders are this machine's."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lavant.server.store.jetstream import Access, Location
from support.nats import NATS_SERVER, await_health, free_ports

DEPLOY = Path(__file__).parents[2] / "server" / "deploy"


def make_secrets(folder: Path) -> Path:
    """Make the secrets of the compose file in a folder; return where they are."""
    shutil.copy(DEPLOY / "make-secrets", folder)
    subprocess.run([folder / "make-secrets"], check=True, stdout=subprocess.DEVNULL)
    return folder / "secrets"


class ShippedCluster:
    """The servers' addresses, the CA that they have, and the access of lavant."""

    def __init__(self, folder: Path) -> None:
        self.secrets = make_secrets(folder)
        self.ports = free_ports(3)
        self.ca = self.secrets / "nats-tls" / "ca.crt"
        self.password = (self.secrets / "nats-password").read_text().strip()
        self.access = Access(ca=self.ca, user="lavant", password=self.password)
        self._folder = folder
        self._routes, self._monitors = free_ports(3), free_ports(3)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """The store's URL, without a password."""
        return "nats://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def location(self, access: Access | None = None) -> Location:
        """Return the store's location, with lavant's access or another one."""
        return Location.parse(self.url, access or self.access)

    def start(self) -> None:
        """Start the servers, and wait until they have a leader."""
        name, _, password = (self.secrets / "nats.env").read_text().strip().partition("=")
        for index in range(3):
            file = self._folder / f"nats-{index}.conf"
            file.write_text(self._configuration(index))
            with (self._folder / f"nats-{index}.log").open("wb") as log:
                environment = {**os.environ, "NAME": f"nats-{index}", name: password}
                self._processes.append(
                    subprocess.Popen([NATS_SERVER, "-c", str(file)], stdout=log, stderr=log, env=environment)
                )
        for monitor in self._monitors:
            await_health(monitor)

    def kill(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _configuration(self, index: int) -> str:
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        changes = {
            r"0\.0\.0\.0:4222": f'"127.0.0.1:{self.ports[index]}"',
            r"0\.0\.0\.0:8222": f'"127.0.0.1:{self._monitors[index]}"',
            r"0\.0\.0\.0:6222": f'"127.0.0.1:{self._routes[index]}"',
            r"routes: \[.*\]": f"routes: [{routes}]",
            "store_dir: /data": f"store_dir: {json.dumps(str(self._folder / str(index)))}",
            "/etc/nats/tls": str(self.secrets / "nats-tls"),
        }
        text = (DEPLOY / "nats.conf").read_text()
        for pattern, replacement in changes.items():
            text, count = re.subn(pattern, lambda _, new=replacement: new, text)  # type: ignore[misc]
            assert count, pattern
        return text


@contextmanager
def shipped_cluster(folder: Path) -> Iterator[ShippedCluster]:
    """Run the servers until the block's end."""
    cluster = ShippedCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
