"""Log of a rule: records of its settings, and of the ledger that each segment of its results begins with."""

from typing import Any, NamedTuple

from google.protobuf import json_format
from pydantic_core import from_json, to_json

from lavant.contract.limits import OWN_RUNS
from lavant.server.errors import ServiceError, rule_not_found
from lavant.server.evaluation.ledger import Ledger
from lavant.server.model import RunKey, beside
from lavant.server.store.port import Engine
from lavant.server.store.system_logs import OverwrittenError, SystemLogs
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event, RunStarted, StateSnapshot
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RunFinished, RunKind, RunSettings, RunState

RECORDS = "rules"  # suffix of the tenant that keeps rules' logs, where callers cannot read them
SET_BY_THE_SERVER = (
    "revision", "create_time", "update_time", "evaluation_id", "progress", "backfill", "alert_statuses",
)  # fmt: skip
OVER = (ErrorReason.ERROR_REASON_RUN_SEALED, ErrorReason.ERROR_REASON_RUN_NOT_FOUND)
_STATE = "rule"
_END = RunFinished(state=RunState.RUN_STATE_SUCCEEDED)


def log_of(rule: RunKey) -> RunKey:
    """Return the log of a rule."""
    return RunKey(beside(rule.tenant, RECORDS), rule.run_id)


def rule_of(log: RunKey) -> RunKey | None:
    """Return the rule whose log this is; None: it is no such log."""
    tenant, _, part = log.tenant.rpartition("/")
    return RunKey(tenant, log.run_id) if part == RECORDS else None


def segment_of(rule: RunKey, number: int) -> RunKey:
    """Return the run that a segment's results are appended to."""
    return RunKey(rule.tenant, f"{OWN_RUNS}{rule.run_id}.{number}")


def settings_of(rule: Rule) -> Rule:
    """Return a copy of a rule without the fields that the server sets, to be compared."""
    settings = Rule()
    settings.CopyFrom(rule)
    for name in SET_BY_THE_SERVER:
        settings.ClearField(name)  # type: ignore[arg-type]  # the names are literals above
    # Equivalent settings must be equal: rules are compared field by field.
    if not settings.paused:
        settings.ClearField("paused")
    if not settings.filter.ListFields():
        settings.ClearField("filter")
    return settings


class Record(NamedTuple):
    """Settings of a rule, the number of the segment that its results go to, and the ledger that this begins with.

    A stored record has its `sequence` in the log; `created_ns` distinguishes successive rules of the same ID.
    """

    rule: Rule
    segment: int
    carried: Any = None
    sequence: int = 0
    created_ns: int = 0
    is_deleted: bool = False

    def ledger(self) -> Ledger:
        """Return the ledger that the segment begins with."""
        return Ledger(self.rule.revision, self.carried)

    def following(self, rule: Rule, ledger: Ledger) -> "Record":
        """Return the record of the next segment, after the end of this one."""
        return Record(rule, self.segment + 1, ledger.carry())

    def encode(self) -> str:
        """Return the record as JSON text."""
        rule = json_format.MessageToDict(self.rule, preserving_proto_field_name=True)
        return to_json({"rule": rule, "segment": self.segment, "carried": self.carried}).decode()

    @classmethod
    def decode(cls, text: str) -> "Record":
        """Parse a text that `encode` returned."""
        parts = from_json(text)
        rule = json_format.ParseDict(parts["rule"], Rule(), ignore_unknown_fields=True)
        return cls(rule, parts["segment"], parts["carried"])


class RuleLog:
    """Records of one rule. A record can be followed only by a caller that knows it; the last one is in force."""

    def __init__(self, rule: RunKey, engine: Engine, logs: SystemLogs) -> None:
        self._rule = rule
        self._key = log_of(rule)
        self._engine = engine
        self._logs = logs

    async def find(self) -> Record | None:
        """Find the last record, also of a rule that is being deleted; None: there is no such rule."""
        run = await self._engine.find_run(self._key)
        if run is None:
            return None
        is_deleted = run.state != RunState.RUN_STATE_RUNNING
        sequence = run.last_sequence - is_deleted
        if sequence < 1:
            return None
        created_ns = run.create_time.ToNanoseconds()
        try:
            events = [event async for event in self._logs.read(self._key, sequence - 1, sequence, created_ns)]
        except ServiceError as error:
            if error.reason == ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                return None
            raise
        record = Record.decode(events[0].state_snapshot.value_json)
        return record._replace(sequence=sequence, created_ns=created_ns, is_deleted=is_deleted)

    async def get(self) -> Record:
        """Return the last record; raises RULE_NOT_FOUND."""
        record = await self.find()
        if record is None or record.is_deleted:
            raise rule_not_found(self._rule.run_id)
        return record

    async def append(self, record: Record | None, *, after: Record | None) -> bool:
        """Append a record, or the end of a deleted rule (None); return whether `after` was the last record until then.

        The first record, which is after None, creates the log.
        """
        event = Event(run_finished=_END) if record is None else _snapshot(record)
        try:
            if after is None:
                settings = RunSettings(kind=RunKind.RUN_KIND_EVALUATION, name=self._rule.run_id)
                events = [Event(run_started=RunStarted()), event]
                await self._logs.append(self._key, 0, events, create=settings)
            else:
                await self._logs.append(self._key, after.sequence, [event])
        except OverwrittenError:
            return False
        except ServiceError as error:
            if error.reason in OVER:
                return False
            raise
        return True

    async def remove(self) -> None:
        """Remove the log of a deleted rule; safe to repeat."""
        try:
            await self._engine.delete_run(self._key)
        except ServiceError as error:
            if error.reason not in (*OVER, ErrorReason.ERROR_REASON_RUN_NOT_ENDED):
                raise

    async def first_free_segment(self) -> int:
        """Return the number after the last segment of an earlier rule of this ID; 1: there was none.

        Segments are never deleted: they are numbered without a gap.
        """
        taken, free = 0, 1
        while await self._has_segment(free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            if await self._has_segment(middle):
                taken = middle
            else:
                free = middle
        return free

    async def _has_segment(self, number: int) -> bool:
        return await self._engine.find_run(segment_of(self._rule, number)) is not None


def _snapshot(record: Record) -> Event:
    return Event(state_snapshot=StateSnapshot(name=_STATE, value_json=record.encode()))
