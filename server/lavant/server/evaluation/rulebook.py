"""All rules, each in a log of its own whose last event is the rule as it stands."""

from collections.abc import Sequence
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, rule_not_found
from lavant.server.evaluation.record import Record, log_of, log_run, segment_of
from lavant.server.model import RunKey, beside
from lavant.server.store.own_logs import OverwrittenError, OwnLogs
from lavant.server.store.port import Engine, RunQuery
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event, RunStarted, StateSnapshot
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RunFinished, RunState
from lavant.v1.run_service_pb2 import RunFilter

_STATE = "rule"
_PAGE = 100  # rules
_ALIVE = RunFilter(states=[RunState.RUN_STATE_RUNNING])
_GONE = (ErrorReason.ERROR_REASON_RUN_NOT_FOUND, ErrorReason.ERROR_REASON_RUN_SEALED)


class Entry(NamedTuple):
    """A rule's record, its place in the rule's log, when the log was created, and whether the rule is deleted."""

    record: Record
    sequence: int
    created_ns: int
    deleted: bool


class RuleList(NamedTuple):
    """The ids of rules, the newest first, and where the next page begins; None: there is none."""

    rule_ids: Sequence[str]
    next_position: int | None


class Rulebook:
    """Keeps the records. A record is replaced only by who knows the one that stands."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._logs = OwnLogs(engine, clock)

    async def add(self, rule: RunKey, record: Record) -> bool:
        """Keep the first record of a rule; tells whether there was none."""
        key = log_of(rule)
        await self._engine.create_run(key, log_run(rule.run_id))
        try:
            await self._logs.append(key, 0, [Event(run_started=RunStarted()), _snapshot(record)])
        except OverwrittenError:
            return False
        except LavantError as error:
            if error.reason in _GONE:
                return False
            raise
        return True

    async def find(self, rule: RunKey) -> Entry | None:
        """Look a rule up, also one that is being deleted; None: there is none."""
        key = log_of(rule)
        try:
            run = await self._engine.get_run(key)
            deleted = run.state != RunState.RUN_STATE_RUNNING
            sequence = run.last_sequence - deleted
            if sequence < 1:
                return None
            created_ns = run.create_time.ToNanoseconds()
            events = [event async for event in self._logs.read(key, sequence - 1, sequence, created_ns)]
        except LavantError as error:
            if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        record = Record.decode(events[0].state_snapshot.value_json)
        return Entry(record, sequence, created_ns, deleted)

    async def get(self, rule: RunKey) -> Entry:
        """Look a rule up; raises RULE_NOT_FOUND."""
        entry = await self.find(rule)
        if entry is None or entry.deleted:
            raise rule_not_found(rule.run_id)
        return entry

    async def replace(self, rule: RunKey, entry: Entry, record: Record) -> bool:
        """Keep another record behind an entry; tells whether that was the last. Raises RULE_NOT_FOUND."""
        return await self._append(rule, entry, _snapshot(record))

    async def close(self, rule: RunKey, entry: Entry) -> bool:
        """Have a rule count as deleted; tells whether the entry was its last. Raises RULE_NOT_FOUND."""
        return await self._append(rule, entry, Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)))

    async def remove(self, rule: RunKey) -> None:
        """Forget a deleted rule; harmless when repeated."""
        try:
            await self._engine.delete_run(log_of(rule))
        except LavantError as error:
            if error.reason not in (*_GONE, ErrorReason.ERROR_REASON_RUN_NOT_ENDED):
                raise

    async def list(self, tenant: str, limit: int, before: int | None) -> RuleList:
        """List a tenant's rules, the newest first."""
        query = RunQuery(tenant=beside(tenant, "rules"), limit=limit, filter=_ALIVE)
        page = await self._engine.list_runs(query, before)
        return RuleList([run.run_id for run in page.runs], page.next_position)

    async def all(self, tenant: str) -> Sequence[Rule]:
        """All rules of a tenant as they stand, without what is derived from their ledgers."""
        rules: list[Rule] = []
        before: int | None = None
        while True:
            page = await self.list(tenant, _PAGE, before)
            for rule_id in page.rule_ids:
                entry = await self.find(RunKey(tenant, rule_id))
                if entry is not None and not entry.deleted:
                    rules.append(entry.record.rule)
            if page.next_position is None:
                return rules
            before = page.next_position

    async def first_free_segment(self, rule: RunKey) -> int:
        """The number behind the last segment of an earlier rule of this id; 1: there was none.

        Segments are never deleted: they are numbered without a gap.
        """
        taken, free = 0, 1
        while await self._has_segment(rule, free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            if await self._has_segment(rule, middle):
                taken = middle
            else:
                free = middle
        return free

    async def _has_segment(self, rule: RunKey, number: int) -> bool:
        try:
            await self._engine.get_run(segment_of(rule, number))
        except LavantError as error:
            if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return False
            raise
        return True

    async def _append(self, rule: RunKey, entry: Entry, event: Event) -> bool:
        try:
            await self._logs.append(log_of(rule), entry.sequence, [event])
        except OverwrittenError:
            return False
        except LavantError as error:
            if error.reason in _GONE:
                raise rule_not_found(rule.run_id) from None
            raise
        return True


def _snapshot(record: Record) -> Event:
    return Event(state_snapshot=StateSnapshot(name=_STATE, value_json=record.encode()))
