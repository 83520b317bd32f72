"""The run that tells of alerts: what it says of each, and what is still to be posted."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import from_json, to_json

from lavant.contract.limits import OWN_RUNS
from lavant.server.clock import Clock
from lavant.server.errors import LavantError
from lavant.server.model import RunKey
from lavant.server.store.own_logs import OverwrittenError, OwnLogs
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import AlertChanged, CustomEvent, Event, RunStarted
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunKind

ALERTS_RUN = f"{OWN_RUNS}alerts"
_NAME = "alerts"
_POSTED = "lavant.alert_posted"
_TO_POST = "lavant.webhook"  # the attribute of changes that are to be posted
_READ_BYTES = 1 << 20


class Letter(NamedTuple):
    """A change that is to be posted."""

    sequence: int
    recorded_ns: int
    change: AlertChanged

    @property
    def name(self) -> tuple[str, str]:
        """The rule's and the alert's."""
        return self.change.rule_id, self.change.alert


class AlertLog:
    """A tenant's run "lavant.alerts", as it was when it was read last. It is created with the first change.

    Each replica has one; whoever appends knows all that was appended before, or does not append.
    """

    def __init__(self, engine: Engine, clock: Clock, tenant: str) -> None:
        self.key = RunKey(tenant, ALERTS_RUN)
        self.changes: dict[tuple[str, str], AlertChanged] = {}  # the last of each rule's each alert
        self.letters: dict[int, Letter] = {}  # by sequence
        self._engine = engine
        self._logs = OwnLogs(engine, clock)
        self._sequence = 0
        self._lock = asyncio.Lock()
        self._news = True
        self._watch = engine.watch(self.key, lambda _: self._hear())

    async def refresh(self, *, certainly: bool = False) -> None:
        """Read on, if anything was heard of, or in any case."""
        async with self._lock:
            if self._news or certainly:
                self._news = False
                try:
                    await self._read_on()
                except BaseException:
                    self._news = True
                    raise

    async def tell(self, changes: Sequence[tuple[AlertChanged, bool]]) -> bool:
        """Append changes, each with whether it is to be posted; False: somebody else was first, decide again."""
        return await self._append(
            [
                Event(alert_changed=change, attributes={_TO_POST: "1"} if to_post else None)
                for change, to_post in changes
            ]
        )

    async def settle(self, letter: Letter, outcome: str) -> None:
        """Append that a change need not be posted any more, and why."""
        told = to_json({"sequence": letter.sequence, "outcome": outcome}).decode()
        while letter.sequence in self.letters:
            await self._append([Event(custom=CustomEvent(name=_POSTED, value_json=told))])

    def close(self) -> None:
        """Hear of nothing more."""
        self._watch.close()

    def _hear(self) -> None:
        self._news = True

    async def _append(self, events: list[Event]) -> bool:
        async with self._lock:
            if not self._sequence:
                await self._engine.create_run(self.key, Run(name=_NAME, kind=RunKind.RUN_KIND_EVALUATION))
                events.insert(0, Event(run_started=RunStarted()))
            try:
                await self._logs.append(self.key, self._sequence, events)
                first = True
            except OverwrittenError:
                first = False
            await self._read_on()
            return first

    async def _read_on(self) -> None:
        while True:
            try:
                chunks = await self._engine.read(self.key, self._sequence, _READ_BYTES)
            except LavantError as error:
                if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                    raise
                return
            if not chunks:
                return
            for chunk in chunks:
                for event in EventBatch.FromString(chunk.data).events:
                    if event.sequence > self._sequence:
                        self._take(event)
                        self._sequence = event.sequence

    def _take(self, event: Event) -> None:
        if event.HasField("alert_changed"):
            change = event.alert_changed
            self.changes[change.rule_id, change.alert] = change
            if _TO_POST in event.attributes:
                letter = Letter(event.sequence, event.record_time.ToNanoseconds(), change)
                self.letters[event.sequence] = letter
        elif event.custom.name == _POSTED:
            self.letters.pop(from_json(event.custom.value_json)["sequence"], None)
