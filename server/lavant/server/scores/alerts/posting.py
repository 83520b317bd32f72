"""Posts of one tenant's changes of alerts."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import httpx
import structlog
from google.protobuf.json_format import MessageToJson

from lavant.server.clock import Clock
from lavant.server.scores.alerts.checks import RulesOf
from lavant.server.scores.alerts.log import AlertLog, Delivery
from lavant.server.streaming.leadership import Leadership

ID_HEADER = "Lavant-Alert-Id"
TIMEOUT = 10.0  # seconds for one try
_LONGEST_PAUSE = 300.0  # seconds between two tries
_GIVE_UP_NS = 24 * 3600 * 1_000_000_000
_MANY = 30  # tries, after which the pause does not grow any more
_AT_ONCE = 20

_log = structlog.get_logger(__name__)


class _Tries(NamedTuple):
    """Number of failed attempts of a delivery, monotonic time of the next one, and whether it was accepted."""

    failures: int = 0
    next_at: float = 0.0
    accepted: bool = False


_UNTRIED = _Tries()


class Poster:
    """Posts what a tenant's log of alerts has to deliver, while this server holds the lease to do so."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        log: AlertLog,
        leadership: Leadership,
        clock: Clock,
        allowed: Callable[[str], bool],
    ) -> None:
        self.leadership = leadership
        self._client = client
        self._alerts = log
        self._clock = clock
        self._allowed = allowed
        self._log = _log.bind(tenant=log.key.tenant)
        self._tries: dict[int, _Tries] = {}  # by sequence

    async def deliver_due(self, rules_of: RulesOf) -> None:
        """Post what is due, once."""
        log = self._alerts
        await log.refresh()
        now = self._clock.monotonic()
        self._tries = {sequence: tries for sequence, tries in self._tries.items() if sequence in log.deliveries}
        heads = _heads(log)
        due = [one for one in heads if self._tries.get(one.sequence, _UNTRIED).next_at <= now][:_AT_ONCE]
        if not due or not await self.leadership.acquire():
            return
        await log.refresh(certainly=True)  # the last holder of the lease may have posted some
        due = [delivery for delivery in due if delivery.sequence in log.deliveries]
        rules = await rules_of(log.key.tenant)
        addresses = {(rule.rule_id, alert.name): alert.webhook_url for rule in rules for alert in rule.alerts}
        work = [self._deliver(delivery, addresses.get(delivery.name, "")) for delivery in due]
        failures = [answer for answer in await asyncio.gather(*work, return_exceptions=True) if answer is not None]
        if failures:
            raise failures[0]

    async def _deliver(self, delivery: Delivery, address: str) -> None:
        """Try a delivery once, and settle it unless it must be tried again."""
        log, alert = self._alerts, delivery.change.alert
        tries = self._tries.get(delivery.sequence, _UNTRIED)
        if not address or not self._allowed(address):
            await log.settle(delivery, "no address")
        elif tries.accepted:
            await log.settle(delivery, "posted")
        elif self._clock.time_ns() - delivery.recorded_ns > _GIVE_UP_NS:
            self._log.warning("webhook_given_up", alert=alert, tries=tries.failures)
            await log.settle(delivery, "given up")
        elif (failure := await self._post(address, delivery)) is None:
            # Not posted again if the log is out of reach now.
            self._tries[delivery.sequence] = tries._replace(accepted=True)
            await log.settle(delivery, "posted")
        else:
            if not tries.failures:
                self._log.warning("webhook_failed", alert=alert, cause=failure)
            pause = min(2.0**tries.failures, _LONGEST_PAUSE)
            self._tries[delivery.sequence] = _Tries(min(tries.failures + 1, _MANY), self._clock.monotonic() + pause)

    async def _post(self, address: str, delivery: Delivery) -> str | None:
        """Post once; return what went wrong, without the address."""
        body = MessageToJson(
            delivery.change, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
        )
        key = self._alerts.key
        # One address may receive the alerts of several tenants, whose logs have the same names.
        headers = {"Content-Type": "application/json", ID_HEADER: f"{key.tenant}/{key.run_id}.{delivery.sequence}"}
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._client.stream("POST", address, content=body, headers=headers) as response,
            ):
                return None if response.is_success else f"status {response.status_code}"  # its body is not read
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__


def _heads(log: AlertLog) -> list[Delivery]:
    """Return the first delivery of each alert: later ones wait for it."""
    first: dict[tuple[str, str], Delivery] = {}
    for delivery in log.deliveries.values():
        first.setdefault(delivery.name, delivery)
    return list(first.values())
