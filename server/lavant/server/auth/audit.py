"""Audit: what was refused and what was administered, as events of each tenant's run `lavant.audit`."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import NamedTuple

import structlog
from google.protobuf.message import Message

from lavant.server.auth.audit_log import AuditLog
from lavant.server.auth.principal import ANONYMOUS, Principal
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.metrics import AuditMetrics
from lavant.server.store.port import Engine
from lavant.v1.audit_pb2 import AuditOutcome, AuditRecorded
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event

ALLOWED, DENIED, FAILED = (
    AuditOutcome.AUDIT_OUTCOME_ALLOWED, AuditOutcome.AUDIT_OUTCOME_DENIED, AuditOutcome.AUDIT_OUTCOME_FAILED,
)  # fmt: skip
DENIALS = (ErrorReason.ERROR_REASON_UNAUTHENTICATED, ErrorReason.ERROR_REASON_PERMISSION_DENIED)

_LAST_SECONDS = 5.0  # to record what is left when the server stops
_TICK = 1.0  # seconds: how long an act waits at most, after another one of its kind
_DENIAL_INTERVAL = 10.0  # seconds between two events about denials of one kind
_MOST_KINDS = 100  # per tenant, whose acts are counted apart; the others are counted together
_IDS = {"run_id": "run", "rule_id": "rule", "key_id": "key", "consumer_id": "consumer"}
_PARTS = ("rule", "key", "batch")
_LONGEST_ID = 128
_MOST_RESOURCES = 5_000  # in all, that wait to be recorded
_RESOURCES_PER_EVENT = 100
_NOBODY = ""  # the tenant of calls without valid credentials

_log = structlog.get_logger(__name__)


def resources_of(message: Message | None) -> list[str]:
    """Return what a request or a response is about, such as "run/RUN_ID": its IDs, and nothing else of it."""
    found: list[str] = []
    for part, value in () if message is None else message.ListFields():
        if part.name in _IDS and isinstance(value, str):
            found.append(f"{_IDS[part.name]}/{value[:_LONGEST_ID]}")
        elif part.name in _PARTS and isinstance(value, Message):
            found += resources_of(value)
    return found


class CallSource(NamedTuple):
    """Place that a call comes from, and what it calls: a method's full name, or a path as the API defines it."""

    protocol: str
    peer: str
    method: str


class _Kind(NamedTuple):
    """Properties that the acts have in common which one event summarizes."""

    tenant: str
    principal: str
    credential_id: str
    protocol: str
    method: str
    outcome: "AuditOutcome.ValueType"
    reason: str


@dataclass(slots=True)
class _Summary:
    """The acts of one kind that are not recorded yet, and from when on they may be recorded."""

    due: float
    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    peer: str = ""
    incident: str = ""
    resources: list[str] = field(default_factory=list)

    def events(self, kind: _Kind) -> list[Event]:
        """Return the events that record the acts: one, or as many as it takes to name their resources."""
        named = [
            self.resources[start : start + _RESOURCES_PER_EVENT]
            for start in range(0, len(self.resources), _RESOURCES_PER_EVENT)
        ] or [[]]
        events, left = [], self.count
        for index, resources in enumerate(named):
            is_last = index == len(named) - 1
            count = left if is_last else min(len(resources), left)
            left -= count
            event = Event(
                audit_recorded=AuditRecorded(
                    outcome=kind.outcome,
                    reason=kind.reason,
                    principal=kind.principal,
                    credential_id=kind.credential_id,
                    peer=self.peer,
                    protocol=kind.protocol,
                    method=kind.method,
                    resources=resources,
                    count=count,
                    incident=self.incident,
                )
            )
            event.event_time.FromNanoseconds(self.last_ns)
            event.audit_recorded.first_time.FromNanoseconds(self.first_ns)
            events.append(event)
        return events


class Audit(Periodic):
    """Records denials and administrative acts, from `async with` to its end, which records what is left.

    Its methods never wait: events are appended in the background. The first act of a kind is recorded at once, those
    that follow together, denials every ten seconds and all else every second. So a flood costs one event per kind and
    interval, and the counts add up; what cannot be appended is tried again. Calls without valid credentials are of no
    tenant: they go to the server's log, as often. What callers of a server without authentication do is not recorded.
    """

    def __init__(self, engine: Engine, clock: Clock, metrics: AuditMetrics | None = None) -> None:
        super().__init__(clock, _TICK)
        self._engine = engine
        self._metrics = metrics or AuditMetrics()
        self._summaries: dict[_Kind, _Summary] = {}
        self._kinds: Counter[str] = Counter()  # by tenant
        self._resources = 0
        self._logs: dict[str, AuditLog] = {}

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:  # not to be cut off in an append, whose events would be counted twice or not at all
            await asyncio.wait((self._task,), timeout=_LAST_SECONDS)
        await super().__aexit__(exc_type, exc, traceback)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._flush(float("inf"))
        except TimeoutError:
            _log.error("audit_not_recorded", calls=sum(summary.count for summary in self._summaries.values()))

    def denied(
        self, origin: CallSource, principal: Principal | None, error: ServiceError, resources: Sequence[str] = ()
    ) -> None:
        """Record that a call was refused for what its credentials are or allow; without a principal, in the log."""
        self._metrics.denied[error.reason_name] += 1
        self._record(origin, principal, DENIED, error.reason_name, resources)

    def done(self, origin: CallSource, principal: Principal, resources: Sequence[str]) -> None:
        """Record an administrative act."""
        self._record(origin, principal, ALLOWED, "", resources)

    def failed(
        self, origin: CallSource, principal: Principal, reason: str, resources: Sequence[str], incident: str = ""
    ) -> None:
        """Record an administrative act that failed, or may have: the incident is that of the server's log."""
        self._record(origin, principal, FAILED, reason, resources, incident)

    async def run_once(self) -> None:
        """Record what is due, and what has become due meanwhile."""
        while await self._flush(self._clock.monotonic()):
            pass

    def _record(
        self,
        origin: CallSource,
        principal: Principal | None,
        outcome: "AuditOutcome.ValueType",
        reason: str,
        resources: Sequence[str],
        incident: str = "",
    ) -> None:
        if principal is ANONYMOUS:
            return
        now = self._clock.monotonic()
        summary = self._summary(origin, principal, outcome, reason, now)
        now_ns = self._clock.time_ns()
        if not summary.count:
            summary.first_ns = now_ns
        summary.count += 1
        summary.last_ns, summary.peer = now_ns, origin.peer
        summary.incident = incident or summary.incident
        room = _RESOURCES_PER_EVENT - len(summary.resources) if outcome == DENIED else len(resources)
        for resource in resources[: min(room, _MOST_RESOURCES - self._resources)]:
            if outcome != DENIED or resource not in summary.resources:
                summary.resources.append(resource)
                self._resources += 1
        if summary.due <= now:
            self.trigger()

    def _summary(
        self,
        origin: CallSource,
        principal: Principal | None,
        outcome: "AuditOutcome.ValueType",
        reason: str,
        now: float,
    ) -> _Summary:
        if principal is None:  # the method is whatever a stranger calls
            kind = _Kind(_NOBODY, "", "", origin.protocol, "", outcome, reason)
        else:
            who = (principal.tenant, principal.id, principal.credential_id)
            kind = _Kind(*who, origin.protocol, origin.method, outcome, reason)
        summary = self._summaries.get(kind)
        if summary is None and self._kinds[kind.tenant] >= _MOST_KINDS:
            kind = _Kind(kind.tenant, "", "", "", "", outcome, "")
            summary = self._summaries.get(kind)
        if summary is None:
            self._kinds[kind.tenant] += 1
            self._summaries[kind] = summary = _Summary(now)
        return summary

    async def _flush(self, now: float) -> bool:
        """Record the summaries that are due, by tenant; forget the kinds of which there was nothing in an interval.

        Return whether any were due.
        """
        due: dict[str, dict[_Kind, _Summary]] = {}
        for kind, summary in list(self._summaries.items()):
            if summary.due > now:
                continue
            if not summary.count:
                del self._summaries[kind]
                self._kinds[kind.tenant] -= 1
                continue
            due.setdefault(kind.tenant, {})[kind] = summary
            if now == float("inf"):
                del self._summaries[kind]
                self._kinds[kind.tenant] -= 1
                self._resources -= len(summary.resources)
                continue
            interval = _DENIAL_INTERVAL if kind.outcome == DENIED else _TICK
            self._summaries[kind] = _Summary(self._clock.monotonic() + interval)
            self._resources -= len(summary.resources)
        self._kinds += Counter()  # drops tenants without any
        for tenant, summaries in due.items():
            if tenant == _NOBODY:
                _report(summaries)
                continue
            try:
                await self._log_of(tenant).append(partial(_events, summaries))
            except ServiceError as error:
                _log.warning("audit_not_recorded", tenant=tenant, error=error.message)
                self._restore(summaries)
            except Exception:
                _log.exception("audit_not_recorded", tenant=tenant)
                self._restore(summaries)
        return bool(due)

    def _log_of(self, tenant: str) -> AuditLog:
        if tenant not in self._logs:
            self._logs[tenant] = AuditLog(self._engine, self._clock, tenant)
        return self._logs[tenant]

    def _restore(self, summaries: dict[_Kind, _Summary]) -> None:
        """Count acts that could not be appended together with those that have come since."""
        for kind, summary in summaries.items():
            later = self._summaries.get(kind)
            if later is None:
                self._kinds[kind.tenant] += 1
                later = self._summaries[kind] = _Summary(self._clock.monotonic() + _TICK)
            if not later.count:
                later.last_ns, later.peer, later.incident = summary.last_ns, summary.peer, summary.incident
            later.first_ns = summary.first_ns
            later.count += summary.count
            kept = summary.resources[: max(0, _MOST_RESOURCES - self._resources)]
            later.resources[:0] = kept
            self._resources += len(kept)


def _events(summaries: dict[_Kind, _Summary]) -> list[Event]:
    return [event for kind, summary in summaries.items() for event in summary.events(kind)]


def _report(summaries: dict[_Kind, _Summary]) -> None:
    for kind, summary in summaries.items():
        _log.warning(
            "calls_refused", protocol=kind.protocol, reason=kind.reason, count=summary.count, last_peer=summary.peer
        )
