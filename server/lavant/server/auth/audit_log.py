"""The system run that a tenant's audit is recorded in."""

import asyncio
from collections.abc import Callable

from lavant.contract.limits import OWN_RUNS
from lavant.server.clock import Clock
from lavant.server.errors import ServiceError
from lavant.server.model import RunKey, is_terminal
from lavant.server.store.port import Engine, RunQuery
from lavant.server.store.system_logs import OverwrittenError, SystemLogs
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event, RunStarted
from lavant.v1.run_pb2 import Run, RunFinished, RunSettings, RunState
from lavant.v1.run_service_pb2 import RunFilter

AUDIT_RUN = f"{OWN_RUNS}audit"
MOST_EVENTS = 100_000  # per run, some 30 MB
_NAME = "audit"
_SETTINGS = RunSettings(name=_NAME)
_PAGE = 100
_OVER = (ErrorReason.ERROR_REASON_RUN_SEALED, ErrorReason.ERROR_REASON_RUN_NOT_FOUND)


def is_audit(run_id: str) -> bool:
    """Return whether a run holds a tenant's audit."""
    return run_id == AUDIT_RUN or run_id.startswith(f"{AUDIT_RUN}.")


class AuditLog:
    """The runs `lavant.audit`, `lavant.audit.2` and so on of a tenant; the last one is open.

    A run is continued in the next one after `MOST_EVENTS` events, so that retention can delete the earlier ones: it
    deletes whole runs. The end of a run names the next one. Replicas append by compare-and-swap.
    """

    def __init__(self, engine: Engine, clock: Clock, tenant: str) -> None:
        self._engine = engine
        self._logs = SystemLogs(engine, clock)
        self._tenant = tenant
        self._number: int | None = None

    async def append(self, make_events: Callable[[], list[Event]]) -> None:
        """Append events; they are made again when another replica has appended first."""
        while True:
            key, after = await self._end()
            events = make_events()
            if not after:
                events.insert(0, Event(run_started=RunStarted()))
            is_full = after + len(events) >= MOST_EVENTS
            if is_full:
                following = self._key((self._number or 1) + 1).run_id
                end = RunFinished(state=RunState.RUN_STATE_SUCCEEDED, output_json=f'{{"continued_in":"{following}"}}')
                events.append(Event(run_finished=end))
            try:
                await self._logs.append(key, after, events, create=_SETTINGS)
            except OverwrittenError:
                await asyncio.sleep(0)
            except ServiceError as error:
                if error.reason not in _OVER:
                    raise
                self._number = None
            else:
                if is_full:
                    self._number = (self._number or 1) + 1
                return

    async def _end(self) -> tuple[RunKey, int]:
        """Return the run to append to, and its last sequence."""
        run = None if self._number is None else await self._engine.find_run(self._key(self._number))
        if self._number is None or (run is not None and is_terminal(run.state)):
            run = await self._latest()
            number = 1 if run is None else _number_of(run)
            if run is not None and is_terminal(run.state):
                number, run = number + 1, None
            self._number = number
        return self._key(self._number), 0 if run is None else run.last_sequence

    async def _latest(self) -> Run | None:
        query = RunQuery(tenant=self._tenant, limit=_PAGE, filter=RunFilter(names=[_NAME]))
        before: int | None = None
        while True:
            page = await self._engine.list_runs(query, before)
            for run in page.runs:
                if is_audit(run.run_id):
                    return run
            before = page.next_position
            if before is None:
                return None

    def _key(self, number: int) -> RunKey:
        return RunKey(self._tenant, AUDIT_RUN if number == 1 else f"{AUDIT_RUN}.{number}")


def _number_of(run: Run) -> int:
    suffix = run.run_id.removeprefix(AUDIT_RUN).removeprefix(".")
    return int(suffix) if suffix else 1
