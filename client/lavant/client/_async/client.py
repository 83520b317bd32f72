"""The client of a lavant server."""

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from lavant.client._async.api.rules import AsyncRules
from lavant.client._async.api.runs import AsyncRuns
from lavant.client._async.api.scores import AsyncScores
from lavant.client._async.authorization import Authorization, credential_names
from lavant.client._async.calls import Metadata, open_channel
from lavant.client._async.concurrency import Closing, TokenSource
from lavant.client._async.transport import Connection
from lavant.client._wire.arguments import check_seconds
from lavant.client._wire.security import (
    API_KEY_VARIABLE,
    INSECURE_VARIABLE,
    TLS,
    ChannelSecurity,
    Secret,
    StrPath,
    check_private,
    is_set,
    resolve_tls,
)
from lavant.client._wire.target import ChannelOption, channel_options, resolve_target

if TYPE_CHECKING:
    from lavant.client._async.api.access import AsyncAccess
    from lavant.client._async.api.evaluations import AsyncEvaluations

DEFAULT_TIMEOUT = 30.0


class AsyncClient(Closing):
    """Client of a lavant server, for asyncio. Use it with `async with`, or create one for the whole program.

    It belongs to the event loop of its first call and can be created outside of any. Another event loop raises
    RuntimeError until the first one is closed; there, a run with `on_error="log"` is not recorded, which is logged
    once.

    `target` is `host:port`, or several of these; default LAVANT_TARGET, or localhost:7447. `tls` is True, the path of a
    file with the server's CAs, or `TLS(...)`; default: what LAVANT_TLS, LAVANT_TLS_CA, LAVANT_TLS_CERT and
    LAVANT_TLS_KEY say, or no TLS.

    `api_key` is sent with every call; default LAVANT_API_KEY. `token` is called instead for a bearer token, such as a
    JWT: before the first call, before the token expires, and once after the server has refused it. Credentials are
    sent in plain text to this machine only, unless `insecure` is true (LAVANT_INSECURE).

    `metadata` is sent with every call. `timeout` is the time limit of a single call with its retries, in seconds,
    default 30; streams have limits of their own. `options` are gRPC channel options and override those of the client.
    The first call opens the connection.

    Raises ValueError or TypeError for arguments that cannot work, such as a file that cannot be read.

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
        api_key: str | None = None,
        token: TokenSource | None = None,
        tls: bool | StrPath | TLS | None = None,
        insecure: bool | None = None,
        metadata: Metadata = (),
        options: Sequence[ChannelOption] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.target = resolve_target(target)
        security = ChannelSecurity(resolve_tls(tls))
        key = api_key or (None if token else os.environ.get(API_KEY_VARIABLE)) or None
        check_private(
            self.target,
            credential_names(key, token, metadata),
            is_encrypted=security.is_encrypted,
            insecure=is_set(INSECURE_VARIABLE) if insecure is None else insecure,
        )
        chosen = channel_options(self.target, [*security.options(), *options])
        self._connection = Connection(
            lambda: open_channel(self.target, security.channel_credentials(), chosen),
            authorization=Authorization(key, token),
            metadata=metadata,
            timeout=check_seconds("timeout", timeout),
        )
        self.runs = AsyncRuns(self._connection)
        self.rules = AsyncRules(self._connection)
        self.scores = AsyncScores(self._connection, self.runs)
        self._arguments = {
            "target": target,
            "api_key": None if key is None else Secret(key),
            "token": token,
            "tls": tls,
            "insecure": insecure,
            "metadata": metadata,
            "options": options,
            "timeout": timeout,
        }

    @cached_property
    def access(self) -> "AsyncAccess":
        """Calls about credentials."""
        from lavant.client._async.api.access import AsyncAccess

        return AsyncAccess(self._connection)

    @cached_property
    def evaluations(self) -> "AsyncEvaluations":
        """Calls about evaluations."""
        # Imported at the first use: few clients evaluate, and the values of evaluations are slow to define.
        from lavant.client._async.api.evaluations import AsyncEvaluations

        return AsyncEvaluations(self._connection, self.runs, self._arguments)

    async def flush(self, timeout: float = DEFAULT_TIMEOUT) -> bool:
        """Wait until all queued events of the client's runs are durable. Return False after `timeout` seconds.

        This includes runs whose blocks were left during an outage. Leaving a run's block flushes that run; call this
        before the process is frozen or killed.

        Example:
            async with client.runs.start("weather-agent") as run:
                await run.text("It is cold.")
                assert await client.flush(timeout=10)
        """
        return await self._connection.open_runs.flush(check_seconds("timeout", timeout))

    async def aclose(self) -> None:
        """Close the connection. Open streams are cut; open runs end as CANCELLED.

        Waits up to 2 seconds for events that are not sent yet, then logs how many are lost.
        """
        await self._connection.close()
