"""Where a store is: on which NATS servers, and by which names its parts go there."""

import re
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlsplit

from lavant.server.model import ConsumerKey, RunKey

PARTITIONS = 8
_SCHEME = "nats://"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_DEFAULT_NAME = "lavant"


class RunSubjects(NamedTuple):
    """Where a run's log is. Its messages have one of three subjects, and compare-and-swap goes over all of them.

    `state` is for messages that change the run's state, so that they can be followed by themselves. `events` is for
    the others that hold events, and `standing` for those that hold none, of which the last one is kept.
    """

    partition: int
    stream: str
    state: str
    events: str
    standing: str
    all: str
    bell: str


class Location(NamedTuple):
    """NATS servers, and the name of a store there: several stores may share a cluster."""

    servers: tuple[str, ...]
    name: str = _DEFAULT_NAME

    @classmethod
    def parse(cls, url: str) -> "Location":
        """Read nats://HOST:PORT,HOST:PORT/NAME; without NAME, "lavant". Raises ValueError."""
        hosts, _, name = url.removeprefix(_SCHEME).partition("/")
        servers = tuple(f"{_SCHEME}{host}" for host in hosts.split(",") if host)
        if not url.startswith(_SCHEME) or not servers or not _NAME.fullmatch(name or _DEFAULT_NAME):
            raise ValueError("must be nats://HOST:PORT, or nats://HOST:PORT,HOST:PORT/NAME with NAME of a-z 0-9 -")
        for server in servers:
            _check_server(server)
        return cls(servers, name or _DEFAULT_NAME)

    def __str__(self) -> str:
        """What `parse` reads, without user names and passwords."""
        hosts = (server.removeprefix(_SCHEME).rpartition("@")[2] for server in self.servers)
        return f"{_SCHEME}{','.join(hosts)}/{self.name}"

    @property
    def log_streams(self) -> list[str]:
        """The streams that hold the logs."""
        return [f"{self._prefix}_LOG_{partition}" for partition in range(PARTITIONS)]

    @property
    def lease_stream(self) -> str:
        """The stream that holds the consumers' places."""
        return f"{self._prefix}_LEASES"

    @property
    def meta_stream(self) -> str:
        """The stream that holds the store's identity."""
        return f"{self._prefix}_META"

    @property
    def identity(self) -> str:
        """The subject of the store's identity."""
        return f"{self.name}.meta.identity"

    def log_subjects(self, partition: int) -> str:
        """All subjects of a stream of logs."""
        return f"{self.name}.log.{partition}.*.*"

    def state_subjects(self, partition: int) -> str:
        """The subjects of the messages that change a run's state."""
        return f"{self.name}.log.{partition}.s.*"

    def feed_bell(self, partition: int | str) -> str:
        """Rung after each message that changes a run's state; "*": all of these."""
        return f"{self.name}.feed.{partition}"

    def run(self, key: RunKey) -> RunSubjects:
        """Where a run is."""
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
            bell=f"{self.name}.bell.{digest}",
        )

    def lease(self, key: ConsumerKey) -> str:
        """The subject of a consumer's place."""
        return f"{self.name}.lease.{_digest(*key.run, key.consumer_id)}"

    def lost(self, replica: str) -> str:
        """Where a replica is told of places that it has lost."""
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
