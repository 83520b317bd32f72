"""The system run that records changes of alerts, and which of them are still to be posted."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from lavant.contract.limits import OWN_RUNS
from lavant.internal.v1.system_record_pb2 import AlertDelivered, SystemRecord
from lavant.server.clock import Clock
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.server.store.system_logs import OverwrittenError, SystemLogs, system_event, system_record
from lavant.v1.event_pb2 import AlertChanged, Event, RunStarted
from lavant.v1.run_pb2 import RunKind, RunSettings

ALERTS_RUN = f"{OWN_RUNS}alerts"
_SETTINGS = RunSettings(name="alerts", kind=RunKind.RUN_KIND_EVALUATION)
_TO_POST = "lavant.webhook"  # the attribute of changes that are to be posted


class Delivery(NamedTuple):
    """A change that is to be posted."""

    sequence: int
    recorded_ns: int
    change: AlertChanged

    @property
    def name(self) -> tuple[str, str]:
        """IDs of the rule and the alert."""
        return self.change.rule_id, self.change.alert


class AlertLog:
    """The run "lavant.alerts" of a tenant, as last read. It is created with the first change.

    Each replica has one. An append fails unless this replica has read everything that was appended before.
    """

    def __init__(self, engine: Engine, clock: Clock, tenant: str) -> None:
        self.key = RunKey(tenant, ALERTS_RUN)
        self.changes: dict[tuple[str, str], AlertChanged] = {}  # the last of each rule's each alert
        self.deliveries: dict[int, Delivery] = {}  # by sequence
        self._engine = engine
        self._logs = SystemLogs(engine, clock)
        self._sequence = 0
        self._lock = asyncio.Lock()
        self._changed = True
        self._watch = engine.watch(self.key, lambda _: self._on_change())

    @property
    def has_news(self) -> bool:
        """Whether the log may have events that were not read yet."""
        return self._changed

    async def refresh(self, *, certainly: bool = False) -> None:
        """Read new events, if the log has changed since the last read; with `certainly`, in any case."""
        async with self._lock:
            if self._changed or certainly:
                self._changed = False
                try:
                    await self._read_on()
                except BaseException:
                    self._changed = True
                    raise

    async def append(self, changes: Sequence[tuple[AlertChanged, bool]]) -> bool:
        """Append changes, each with whether it is to be posted. Return False if another replica appended first."""
        return await self._append(
            [
                Event(alert_changed=change, attributes={_TO_POST: "1"} if to_post else None)
                for change, to_post in changes
            ]
        )

    async def settle(self, delivery: Delivery, outcome: str) -> None:
        """Append that a change is not to be posted any more, and why."""
        delivered = SystemRecord(alert_delivered=AlertDelivered(sequence=delivery.sequence, outcome=outcome))
        while delivery.sequence in self.deliveries:
            await self._append([system_event(delivered)])

    def close(self) -> None:
        """Stop watching the log."""
        self._watch.close()

    def _on_change(self) -> None:
        self._changed = True

    async def _append(self, events: list[Event]) -> bool:
        async with self._lock:
            if not self._sequence:
                events.insert(0, Event(run_started=RunStarted()))
            try:
                await self._logs.append(self.key, self._sequence, events, create=_SETTINGS)
                first = True
            except OverwrittenError:
                first = False
            await self._read_on()
            return first

    async def _read_on(self) -> None:
        async for event in self._logs.read_on(self.key, self._sequence):
            self._take(event)
            self._sequence = event.sequence

    def _take(self, event: Event) -> None:
        if event.HasField("alert_changed"):
            change = event.alert_changed
            self.changes[change.rule_id, change.alert] = change
            if _TO_POST in event.attributes:
                delivery = Delivery(event.sequence, event.record_time.ToNanoseconds(), change)
                self.deliveries[event.sequence] = delivery
        elif (record := system_record(event)) is not None:
            self.deliveries.pop(record.alert_delivered.sequence, None)
