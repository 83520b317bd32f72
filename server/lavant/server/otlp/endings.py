"""Ends of traces: a trace has none of its own."""

from collections.abc import Coroutine

import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import ServiceError
from lavant.server.model import callers_tenant
from lavant.server.otlp.traces import SOURCE_LABEL, WAITING, Trace, Traces
from lavant.server.store.port import RunQuery
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import RunFilter

_INTERVAL = 1.0
_SWEEP = 30.0  # seconds between two readings of the lists: another server may have died with the traces it remembered
_PAGE = 200
_OPEN = RunFilter(states=[RunState.RUN_STATE_RUNNING], labels={SOURCE_LABEL: "otlp"})
_WAITING = RunFilter(names=[WAITING])

_log = structlog.get_logger(__name__)


class TraceEndings(Periodic):
    """Ends the run of a trace once its root has ended and nothing came for the quiet time.

    A run of log records without a trace has no root: it ends after the idle timeout. Traces that wait for an agent are
    deleted after it. Runs whose root does not end are abandoned, as
    those of any silent producer.
    """

    def __init__(self, traces: Traces, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        self._traces = traces
        self._clock = clock
        self._swept_at = float("-inf")

    async def run_once(self) -> None:
        """End what is quiet."""
        now = self._clock.monotonic()
        if now - self._swept_at >= _SWEEP and self._may_lack_some():
            self._swept_at = now
            await self._guarded(self._sweep())
        for trace in self._traces.due():
            await self._guarded(self._end(trace))

    async def _end(self, trace: Trace) -> None:
        traces, logs = self._traces, self._traces.logs
        async with traces.using(trace):
            if (log := trace.open_run) is not None:
                silence = await logs.silence(log)
                is_over = log.content.is_rootless and silence >= traces.idle_timeout
                if is_over or (log.content.has_ended and silence >= traces.quiet_time):
                    await logs.finish(log)
            waits = trace.waiting.exists
            if waits and (trace.runs or await logs.silence(trace.waiting) >= traces.idle_timeout):
                await traces.drain(None, trace)
            # A root may end at another server that then dies: what is open here is compared with the store at times.
            has_root = log is not None and log.content.has_ended
            trace.due_at = self._clock.monotonic() + (traces.quiet_time if has_root else _SWEEP)

    def _may_lack_some(self) -> bool:
        """Return whether traces may be open that are not remembered: at the start, or if another server had them."""
        is_first = self._swept_at == float("-inf")
        is_shared = self._traces.engine.opening is None
        has_forgotten, self._traces.has_forgotten = self._traces.has_forgotten, False
        return is_first or is_shared or has_forgotten

    async def _sweep(self) -> None:
        """Remember the traces that are open in the store."""
        engine = self._traces.engine
        for tenant in await engine.list_tenants():
            waits = tenant.endswith(f"/{WAITING}")
            query = RunQuery(tenant=tenant, limit=_PAGE, filter=_WAITING if waits else _OPEN)
            if "/" in tenant and not waits:
                continue
            before = None
            while True:
                page = await engine.list_runs(query, before)
                for listed in page.runs:
                    self._traces.trace(callers_tenant(tenant), listed.run_id.partition(".")[0])
                before = page.next_position
                if before is None:
                    break

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except ServiceError as error:
            _log.debug("trace_not_ended", error=error.message)
        except Exception:
            _log.exception("trace_not_ended")
