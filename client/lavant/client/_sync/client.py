# Made from _async/client.py by client/unasync.py: change that one.
"""The client: where everything begins."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from lavant.client._arguments import check_seconds
from lavant.client._sync.calls import Metadata, open_channel
from lavant.client._sync.concurrency import UsageHints
from lavant.client._sync.connection import Connection
from lavant.client._sync.evaluations import Evaluations
from lavant.client._sync.rules import Rules
from lavant.client._sync.runs import Runs
from lavant.client._sync.scores import Scores
from lavant.client._target import ChannelOption, channel_options, resolve_target

DEFAULT_TIMEOUT = 30.0


class Client(UsageHints):
    """A connection to a lavant server. Use it with `with`, or make it once for all of a program.

    It may be used from any thread.
    `target` is `host:port`, or several of these; by default LAVANT_TARGET, else localhost:7447.
    `credentials` make it TLS; `api_key` and `metadata` go with every call. `timeout` is how long
    a single call may take in all, in seconds; streams have limits of their own. `options` are gRPC's
    channel options, and win over the client's own. Nothing is dialled before the first call.

    Example:
        with Client(target, timeout=10) as client:
            with client.runs.start("weather-agent", input={"city": "Oslo"}) as run:
                run.text("It is cold.")
            assert client.runs.stream(run.id).text() == "It is cold."
    """

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str | None = None,
        metadata: Metadata = (),
        options: Sequence[ChannelOption] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        authorization = [("authorization", f"Bearer {api_key}")] if api_key else []
        carried = [*authorization, *metadata]
        self.target = resolve_target(target)
        chosen = channel_options(self.target, options)
        self._connection = Connection(
            lambda: open_channel(self.target, credentials, chosen),
            metadata=carried,
            timeout=check_seconds("timeout", timeout),
        )
        self.runs = Runs(self._connection)
        self.rules = Rules(self._connection)
        self.scores = Scores(self._connection, self.runs)
        opened_with = {"credentials": credentials, "metadata": carried, "options": options, "timeout": timeout}
        self.evaluations = Evaluations(self._connection, self.runs, {"target": target, **opened_with})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def flush(self, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """Wait until all that the client's runs have queued is durable; return whether it is after `timeout` seconds.

        Also what is left of runs that were left during an outage. For those who must know, as before a process is
        frozen or killed; leaving a run's block waits by itself.

        Example:
            with client.runs.start("weather-agent") as run:
                run.text("It is cold.")
                assert client.flush(timeout=10)
        """
        return self._connection.open_runs.flush(check_seconds("timeout", timeout))

    def close(self) -> None:
        """Close the connection. Streams still open are cut off; runs still open end as CANCELLED.

        Waits up to two seconds for what the runs have not sent yet; what is lost after that is logged with its number.
        """
        self._connection.close()
