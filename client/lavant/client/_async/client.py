"""The client: where everything begins."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from lavant.client._arguments import check_seconds
from lavant.client._async.calls import Metadata, open_channel
from lavant.client._async.concurrency import UsageHints
from lavant.client._async.connection import Connection
from lavant.client._async.evaluations import AsyncEvaluations
from lavant.client._async.rules import AsyncRules
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.scores import AsyncScores
from lavant.client._target import ChannelOption, channel_options, resolve_target

DEFAULT_TIMEOUT = 30.0


class AsyncClient(UsageHints):
    """A connection to a lavant server. Use it with `async with`, or make it once for all of a program.

    It belongs to the event loop that its first call is made in, and may be made outside of any. Another one raises
    RuntimeError, unless the first is closed; a run with `on_error="log"` is not recorded then, which is logged once.
    `target` is `host:port`, or several of these; by default LAVANT_TARGET, else localhost:7447.
    `credentials` make it TLS; `api_key` and `metadata` go with every call. `timeout` is how long
    a single call may take in all, in seconds; streams have limits of their own. `options` are gRPC's
    channel options, and win over the client's own. Nothing is dialled before the first call.

    Example:
        async with AsyncClient(target, timeout=10) as client:
            async with client.runs.start("weather-agent", input={"city": "Oslo"}) as run:
                await run.text("It is cold.")
            assert await client.runs.stream(run.id).text() == "It is cold."
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
        self.runs = AsyncRuns(self._connection)
        self.rules = AsyncRules(self._connection)
        self.scores = AsyncScores(self._connection, self.runs)
        opened_with = {"credentials": credentials, "metadata": carried, "options": options, "timeout": timeout}
        self.evaluations = AsyncEvaluations(self._connection, self.runs, {"target": target, **opened_with})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def flush(self, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """Wait until all that the client's runs have queued is durable; return whether it is after `timeout` seconds.

        Also what is left of runs that were left during an outage. For those who must know, as before a process is
        frozen or killed; leaving a run's block waits by itself.

        Example:
            async with client.runs.start("weather-agent") as run:
                await run.text("It is cold.")
                assert await client.flush(timeout=10)
        """
        return await self._connection.open_runs.flush(check_seconds("timeout", timeout))

    async def aclose(self) -> None:
        """Close the connection. Streams still open are cut off; runs still open end as CANCELLED.

        Waits up to two seconds for what the runs have not sent yet; what is lost after that is logged with its number.
        """
        await self._connection.close()
