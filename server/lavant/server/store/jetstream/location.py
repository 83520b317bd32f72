"""Location of a store: its NATS servers, and the names of its streams and subjects."""

import re
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

from lavant.server.model import ConsumerKey, RunKey
from lavant.server.store.jetstream.access import Access

PARTITIONS = 8
_SCHEME = "nats://"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_DEFAULT_NAME = "lavant"
_NO_ACCESS = Access()


class RunSubjects(NamedTuple):
    """Subjects of a run's log. Each message has one of three, and compare-and-swap covers all of them.

    `state` is for messages that change the run's state, so that they can be followed separately. `events` is for
    other messages with events, and `standing` for those without events, of which only the last one is kept.
    """

    partition: int
    stream: str
    state: str
    events: str
    standing: str
    all: str
    notification: str


class Location(NamedTuple):
    """NATS servers, the name of a store there, and the access to it: several stores may share a cluster."""

    servers: tuple[str, ...]
    name: str = _DEFAULT_NAME
    access: Access = _NO_ACCESS

    @classmethod
    def parse(cls, url: str, access: Access = _NO_ACCESS) -> "Location":
        """Read nats://HOST:PORT,HOST:PORT/NAME; without NAME, "lavant". Raises ValueError."""
        hosts, _, name = url.removeprefix(_SCHEME).partition("/")
        servers = tuple(f"{_SCHEME}{host}" for host in hosts.split(",") if host)
        if not url.startswith(_SCHEME) or not servers or not _NAME.fullmatch(name or _DEFAULT_NAME):
            raise ValueError("must be nats://HOST:PORT, or nats://HOST:PORT,HOST:PORT/NAME with NAME of a-z 0-9 -")
        for server in servers:
            _check_server(server)
        return cls(servers, name or _DEFAULT_NAME, access)

    def __str__(self) -> str:
        """Return the URL that `parse` reads, without user names and passwords."""
        hosts = (server.removeprefix(_SCHEME).rpartition("@")[2] for server in self.servers)
        return f"{_SCHEME}{','.join(hosts)}/{self.name}"

    def __repr__(self) -> str:
        """Return what has no passwords."""
        return f"Location({self})"

    @property
    def log_streams(self) -> list[str]:
        """Names of the streams that hold the logs."""
        return [f"{self._prefix}_LOG_{partition}" for partition in range(PARTITIONS)]

    @property
    def lease_stream(self) -> str:
        """Name of the stream that holds the consumers' leases."""
        return f"{self._prefix}_LEASES"

    @property
    def meta_stream(self) -> str:
        """Name of the stream that holds the store's identity."""
        return f"{self._prefix}_META"

    @property
    def identity(self) -> str:
        """Subject of the store's identity."""
        return f"{self.name}.meta.identity"

    def log_subjects(self, partition: int) -> str:
        """Return the filter for all subjects of a partition's stream."""
        return f"{self.name}.log.{partition}.*.*"

    def state_subjects(self, partition: int) -> str:
        """Return the filter for a partition's messages that change a run's state."""
        return f"{self.name}.log.{partition}.s.*"

    def feed_notification(self, partition: int | str) -> str:
        """Return the subject of the notification that follows each change of a run's state; "*" for all partitions."""
        return f"{self.name}.feed.{partition}"

    def run(self, key: RunKey) -> RunSubjects:
        """Return the subjects of a run."""
        digest = _digest(*key)
        partition = int(digest[:8], 16) % PARTITIONS
        log = f"{self.name}.log.{partition}"
        return RunSubjects(
            partition=partition,
            stream=f"{self._prefix}_LOG_{partition}",
            state=f"{log}.s.{digest}",
            events=f"{log}.e.{digest}",
            standing=f"{log}.h.{digest}",
            all=f"{log}.*.{digest}",
            notification=f"{self.name}.notification.{digest}",
        )

    def lease(self, key: ConsumerKey) -> str:
        """Return the subject of a consumer's lease."""
        return f"{self.name}.lease.{_digest(*key.run, key.consumer_id)}"

    def lost(self, replica: str) -> str:
        """Return the subject on which a replica is notified of leases that it has lost."""
        return f"{self.name}.lost.{replica}"

    @property
    def _prefix(self) -> str:
        return self.name.upper()


def _check_server(server: str) -> None:
    try:
        parts = urlsplit(server)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        host = server.removeprefix(_SCHEME).rpartition("@")[2]
        raise ValueError(f"must name servers as HOST:PORT, which {host!r} is not")


def _digest(*names: str) -> str:
    return sha256("\0".join(names).encode()).hexdigest()[:32]
