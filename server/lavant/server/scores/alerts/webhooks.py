"""Delivery of changes of alerts to webhooks, with retries."""

import asyncio
from collections.abc import Callable
from types import TracebackType

import httpx
import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.model import beside
from lavant.server.scores.alerts.checks import RulesOf
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.posting import TIMEOUT, Poster
from lavant.server.streaming.leadership import Leadership
from lavant.server.streaming.leases import ConsumerLeases

_INTERVAL = 1.0  # seconds between two passes
_MOST_CONNECTIONS = 1_000  # of all tenants; each has few at once, so that slow ones leave the others theirs
_SENDER = "lavant.webhooks"

_log = structlog.get_logger(__name__)


class WebhookSender(Periodic):
    """Posts the changes that the logs of alerts have to deliver, in the order of each alert's changes.

    One replica posts a tenant's changes at a time. Tenants do not wait for each other. Each change is posted at least
    once, for a day; after the death of a sender the next one may repeat its last posts. Addresses are secrets: they are
    neither logged nor stored in the log.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        logs: AlertLogs,
        leases: ConsumerLeases,
        rules_of: RulesOf,
        allowed: Callable[[str], bool],
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self._logs = logs
        self._leases = leases
        self._rules_of = rules_of
        self._allowed = allowed
        self._posters: dict[AlertLog, Poster] = {}
        self._tasks: dict[AlertLog, asyncio.Task[None]] = {}
        # The environment's proxies and credentials are not meant for these addresses.
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
        self._client = httpx.AsyncClient(timeout=TIMEOUT, limits=limits, follow_redirects=False, trust_env=False)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        await self.close()

    async def run_once(self) -> None:
        """Start to post what is due, for each tenant by a task of its own."""
        for log in self._logs.current():
            if log not in self._tasks and (log.has_news or log.deliveries):
                task = self._tasks[log] = asyncio.get_running_loop().create_task(self._deliver(log))
                task.add_done_callback(lambda _, log=log: self._tasks.pop(log))  # type: ignore[misc]

    async def idle(self) -> None:
        """Wait until nothing is being posted."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def close(self) -> None:
        """Stop posting, and release the leases, so that another replica can post."""
        for task in self._tasks.values():
            task.cancel()
        await self.idle()
        for poster in self._posters.values():
            await poster.leadership.release()
        await self._client.aclose()

    async def _deliver(self, log: AlertLog) -> None:
        poster = self._posters.get(log)
        if poster is None:
            leadership = Leadership(self._leases, beside(log.key.tenant, "alerts"), _SENDER)
            poster = self._posters[log] = Poster(self._client, log, leadership, self._clock, self._allowed)
        try:
            await poster.deliver_due(self._rules_of)
            if not log.deliveries:
                await poster.leadership.release()
                del self._posters[log]
        except ServiceError as error:
            _log.debug("alerts_not_posted", tenant=log.key.tenant, error=error.message)
        except Exception:
            _log.exception("alerts_not_posted", tenant=log.key.tenant)
