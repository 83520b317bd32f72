"""Posts changes of alerts to webhooks, until each was taken."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import httpx
import structlog
from google.protobuf.json_format import MessageToJson

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.model import ConsumerKey, RunKey, beside
from lavant.server.periodic import Periodic
from lavant.server.scores.alert_log import AlertLog, Letter
from lavant.server.scores.alerting import RulesOf
from lavant.server.store.port import Claim
from lavant.server.streaming.places import Place, Places
from lavant.v1.error_pb2 import ErrorReason

ID_HEADER = "Lavant-Alert-Id"
_INTERVAL = 1.0  # seconds between two looks
_TIMEOUT = 10.0  # seconds for one try
_LONGEST_PAUSE = 300.0  # seconds between two tries
_GIVE_UP_NS = 24 * 3600 * 1_000_000_000
_MANY = 30  # tries; the pause grows no more
_AT_ONCE = 20
_POSTER = "lavant.webhooks"

_log = structlog.get_logger(__name__)


class _Tries(NamedTuple):
    """How often a change was posted in vain, when it is time again (monotonic), and whether it was taken."""

    failures: int = 0
    next_at: float = 0.0
    taken: bool = False


_UNTRIED = _Tries()


class Poster(Periodic):
    """Posts what logs of alerts have for it, in the order of each alert's changes; from `async with` to its end.

    One replica posts at a time. Each change is posted at least once, for a day; after the death of a poster the
    next one may repeat what it was about. Addresses are secrets: they are neither logged nor stored in the log.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        logs: Sequence[AlertLog],
        places: Places,
        rules_of: RulesOf,
        allowed: Callable[[str], bool],
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self._logs = logs
        self._places = places
        self._rules_of = rules_of
        self._allowed = allowed
        self._session = secrets.token_hex(16)
        self._attempt = 0
        self._held: dict[str, Place] = {}
        self._tries: dict[tuple[str, int], _Tries] = {}
        # Proxies and credentials of the environment are for others.
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, trust_env=False)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        await self.close()

    async def close(self) -> None:
        """Let somebody else post."""
        for place in self._held.values():
            await self._places.give_back(place)
        await self._client.aclose()

    async def look(self) -> None:
        """Post what is due."""
        for log in self._logs:
            try:
                await self._look_at(log)
            except LavantError as error:
                _log.debug("alerts_not_posted", error=error.message)
            except Exception:
                _log.exception("alerts_not_posted")

    async def _look_at(self, log: AlertLog) -> None:
        await log.refresh()
        tenant, now = log.key.tenant, self._clock.monotonic()
        self._tries = {of: tries for of, tries in self._tries.items() if of[0] != tenant or of[1] in log.letters}
        waiting = [self._tries.get((tenant, letter.sequence), _UNTRIED).next_at <= now for letter in _heads(log)]
        due = [letter for letter, is_due in zip(_heads(log), waiting, strict=True) if is_due][:_AT_ONCE]
        if not due or not await self._has_place(tenant):
            return
        await log.refresh(certainly=True)  # who had the place may have posted some of it
        due = [letter for letter in due if letter.sequence in log.letters]
        rules = await self._rules_of(tenant)
        addresses = {(rule.rule_id, alert.name): alert.webhook_url for rule in rules for alert in rule.alerts}
        work = [self._deliver(log, letter, addresses.get(letter.name, "")) for letter in due]
        failures = [answer for answer in await asyncio.gather(*work, return_exceptions=True) if answer is not None]
        if failures:
            raise failures[0]

    async def _has_place(self, tenant: str) -> bool:
        held = self._held.get(tenant)
        if held is not None:
            if not held.lost and held.usable_until > self._clock.monotonic():
                return True
            self._places.abandon(self._held.pop(tenant))
        self._attempt += 1
        key = ConsumerKey(RunKey(beside(tenant, "alerts"), _POSTER), _POSTER)
        try:
            claim = Claim(session_id=self._session, attempt=self._attempt)
            self._held[tenant] = await self._places.take(key, claim, lambda: None)
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_CONSUMER_BUSY:
                raise
            return False
        return True

    async def _deliver(self, log: AlertLog, letter: Letter, address: str) -> None:
        """Try once, and settle what need not be tried again."""
        place, alert = (log.key.tenant, letter.sequence), letter.change.alert
        tries = self._tries.get(place, _UNTRIED)
        if not address or not self._allowed(address):
            await log.settle(letter, "no address")
        elif tries.taken:
            await log.settle(letter, "posted")
        elif self._clock.time_ns() - letter.recorded_ns > _GIVE_UP_NS:
            _log.warning("webhook_given_up", alert=alert, tries=tries.failures)
            await log.settle(letter, "given up")
        elif (failure := await self._post(address, log.key, letter)) is None:
            self._tries[place] = tries._replace(taken=True)  # not posted again if the log is out of reach now
            await log.settle(letter, "posted")
        else:
            if not tries.failures:
                _log.warning("webhook_failed", alert=alert, cause=failure)
            pause = min(2.0**tries.failures, _LONGEST_PAUSE)
            self._tries[place] = _Tries(min(tries.failures + 1, _MANY), self._clock.monotonic() + pause)

    async def _post(self, address: str, key: RunKey, letter: Letter) -> str | None:
        """Post once; tells what went wrong, without the address."""
        body = MessageToJson(
            letter.change, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
        )
        headers = {"Content-Type": "application/json", ID_HEADER: f"{key.run_id}.{letter.sequence}"}
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                self._client.stream("POST", address, content=body, headers=headers) as response,
            ):
                return None if response.is_success else f"status {response.status_code}"  # its body is not read
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return type(error).__name__


def _heads(log: AlertLog) -> list[Letter]:
    """The first letter of each alert: the ones behind it wait."""
    first: dict[tuple[str, str], Letter] = {}
    for letter in log.letters.values():
        first.setdefault(letter.name, letter)
    return list(first.values())
