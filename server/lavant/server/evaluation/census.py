"""How many rules, samples and alerts there are, for metrics: counted by one of the servers that share a store."""

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

import structlog

from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.drawing import first_unseen
from lavant.server.evaluation.outcomes import find_ended
from lavant.server.evaluation.views import rule_view
from lavant.server.model import ConsumerKey, RunKey, beside
from lavant.server.periodic import Periodic
from lavant.server.store.port import Claim, Engine
from lavant.server.streaming.places import Place, Places
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.rule_pb2 import AlertState, AlertStatus, Rule

_INTERVAL = 10.0  # seconds between two counts
_TENANT = "default"
_COUNTER = "lavant.census"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted last; all zero where another server counts. `oldest_ns` is when the oldest waiting run ended."""

    rules: int = 0
    waiting: int = 0
    delayed: int = 0
    held: int = 0
    oldest_ns: int | None = None
    firing: int = 0
    unable: int = 0


class Census(Periodic):
    """Counts every 10 s, from `async with` to its end, if no other server does."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        places: Places,
        desks: Desks,
        statuses_of: Callable[[str, Rule], Awaitable[Iterable[AlertStatus]]],
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self.count = Count()
        self._engine = engine
        self._places = places
        self._desks = desks
        self._statuses_of = statuses_of
        self._session = secrets.token_hex(16)
        self._attempt = 0
        self._place: Place | None = None

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._place is not None:
            await self._places.give_back(self._place)

    async def look(self) -> None:
        """Count once."""
        try:
            self.count = await self._counted() if await self._has_place() else Count()
        except LavantError as error:
            _log.debug("rules_not_counted", error=error.message)
        except Exception:
            _log.exception("rules_not_counted")

    async def _has_place(self) -> bool:
        if self._place is not None:
            if not self._place.lost and self._place.usable_until > self._clock.monotonic():
                return True
            self._places.abandon(self._place)
            self._place = None
        self._attempt += 1
        key = ConsumerKey(RunKey(beside(_TENANT, "rules"), _COUNTER), _COUNTER)
        try:
            claim = Claim(session_id=self._session, attempt=self._attempt)
            self._place = await self._places.take(key, claim, lambda: None)
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_CONSUMER_BUSY:
                raise
            return False
        return True

    async def _counted(self) -> Count:
        total = Count()
        for rule in await self._desks.rulebook.all(_TENANT):
            try:
                total = _sum(total, await self._counted_rule(RunKey(_TENANT, rule.rule_id)))
            except LavantError as error:
                if error.reason != ErrorReason.ERROR_REASON_RULE_NOT_FOUND:  # deleted meanwhile
                    raise
        return total

    async def _counted_rule(self, key: RunKey) -> Count:
        with self._desks.at(key) as counter:
            await counter.desk.refresh()
            view = rule_view(counter.desk)
            oldest_ns = await self._oldest(counter.desk)
        states = [status.state for status in await self._statuses_of(_TENANT, view)]
        progress = view.progress
        return Count(
            rules=1,
            waiting=progress.samples_waiting,
            delayed=progress.samples_delayed,
            held=progress.samples_held,
            oldest_ns=oldest_ns,
            firing=states.count(AlertState.ALERT_STATE_FIRING),
            unable=states.count(AlertState.ALERT_STATE_CANNOT_FIRE),
        )

    async def _oldest(self, desk: Desk) -> int | None:
        """When the oldest run ended that waits; without workers, nobody has drawn it yet."""
        waiting = next((sample.run_id for sample in desk.ledger.samples.values() if not sample.session_id), None)
        run = None
        if waiting is not None:
            run = await find_ended(self._engine, RunKey(desk.rule.tenant, waiting))
        elif not desk.entry.record.rule.paused:
            run = await first_unseen(desk, self._engine)
        return None if run is None else run.end_time.ToNanoseconds()


def _sum(one: Count, other: Count) -> Count:
    times = [time for time in (one.oldest_ns, other.oldest_ns) if time is not None]
    return Count(
        rules=one.rules + other.rules,
        waiting=one.waiting + other.waiting,
        delayed=one.delayed + other.delayed,
        held=one.held + other.held,
        oldest_ns=min(times, default=None),
        firing=one.firing + other.firing,
        unable=one.unable + other.unable,
    )
