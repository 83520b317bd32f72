"""Traces as runs: their logs, and the one that a span is recorded in."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from lavant.server.auth.access import check_new_run
from lavant.server.auth.principal import Principal
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.clock import Clock
from lavant.server.errors import unavailable
from lavant.server.model import RunKey, beside
from lavant.server.otlp.received import ReceivedSpan
from lavant.server.otlp.steps import run_started, step_events
from lavant.server.otlp.trace_log import TraceLog, TraceLogs
from lavant.server.slices import in_slices
from lavant.server.store.port import Engine
from lavant.server.store.system_logs import OverwrittenError
from lavant.v1.run_pb2 import RunSettings

SOURCE_LABEL = "source"
_SERVICE_LABEL = "service"
WAITING = "spans"  # the tenant beside a caller's, where traces without an agent wait for one
_TRIES = 20
_MOST_SPANS = 200_000  # of all traces that are remembered: any of them can be read again from its log


class Trace:
    """A trace of a tenant: its run, the runs of what came after that one's end, and the log in which it waits.

    Whoever uses it holds `lock`.
    """

    def __init__(self, tenant: str, trace_id: str) -> None:
        self.tenant = tenant
        self.id = trace_id
        self.lock = asyncio.Lock()
        self.is_read = False
        self.runs: list[TraceLog] = []
        self.waiting = TraceLog(RunKey(beside(tenant, WAITING), trace_id))
        self.due_at = 0.0  # monotonic time at which to look whether its run ends
        self.counted = 0  # spans that are counted as remembered

    @property
    def span_count(self) -> int:
        """Number of spans that are remembered."""
        return 1 + sum(len(log.content.spans) for log in (*self.runs, self.waiting))

    @property
    def open_run(self) -> TraceLog | None:
        """The run that records the trace; None before its start and after its end."""
        return self.runs[-1] if self.runs and not self.runs[-1].is_sealed else None

    def holds(self, received: ReceivedSpan) -> bool:
        """Return whether one of the runs has recorded a span."""
        return any(log.content.holds(received.id, received.end_ns) for log in self.runs)


class Traces:
    """Records spans as runs, one per trace with an agent in it.

    A span is recorded once, whatever is sent again, by whom and to which server. What comes after the end of the run is
    kept in a run that names it as its parent. Times are in seconds; `TraceEndings` uses them.
    """

    def __init__(self, engine: Engine, clock: Clock, quotas: RunQuotas, quiet_time: float, idle_timeout: float) -> None:
        self.engine = engine
        self.clock = clock
        self.quiet_time = quiet_time
        self.idle_timeout = idle_timeout
        self.logs = TraceLogs(engine, clock, quotas)
        self._open: dict[tuple[str, str], Trace] = {}  # those with something to end
        self._traces: OrderedDict[tuple[str, str], Trace] = OrderedDict()
        self._span_count = 0
        self.has_forgotten = False  # whether traces were forgotten that have something to end

    async def record(self, principal: Principal, received: Iterable[ReceivedSpan]) -> None:
        """Record spans; what was recorded before is left as it is. Durable when this returns."""
        groups: dict[str, list[ReceivedSpan]] = defaultdict(list)
        for each in received:
            groups[each.trace_id].append(each)
        results = await asyncio.gather(
            *(self._record(principal, trace_id, spans) for trace_id, spans in groups.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def due(self) -> list[Trace]:
        """Return the traces of which it is time to look whether they end."""
        now = self.clock.monotonic()
        return [trace for trace in self._open.values() if trace.due_at <= now and not trace.lock.locked()]

    def trace(self, tenant: str, trace_id: str) -> Trace:
        """Return a trace, to be locked and read."""
        key = (tenant, trace_id)
        trace = self._traces.get(key)
        if trace is None:
            trace = self._traces[key] = self._open[key] = Trace(tenant, trace_id)
            trace.due_at = self.clock.monotonic() + self.quiet_time
        self._traces.move_to_end(key)
        return trace

    @asynccontextmanager
    async def using(self, trace: Trace) -> AsyncIterator[None]:
        """Lock and read a trace; after a failure in the block, nobody knows what is stored, and it is read again.

        Does not raise OverwrittenError: the block is left without it, before its end.
        """
        async with trace.lock:
            try:
                while not trace.is_read:
                    with suppress(OverwrittenError):
                        await self._read_logs(trace)
                yield
            except BaseException as error:
                self.forget(trace)
                if not isinstance(error, OverwrittenError):
                    raise
            else:
                key = (trace.tenant, trace.id)
                if trace.open_run is None and not trace.waiting.exists:
                    self._open.pop(key, None)
                elif self._traces.get(key) is trace:
                    self._open[key] = trace
                if self._traces.get(key) is trace:
                    self._span_count += trace.span_count - trace.counted
                    trace.counted = trace.span_count
                    self._forget_some()

    def forget(self, trace: Trace) -> None:
        """Forget a trace: whoever needs it reads its logs."""
        if self._traces.get((trace.tenant, trace.id)) is trace:
            del self._traces[trace.tenant, trace.id]
            self._span_count -= trace.counted
            if self._open.pop((trace.tenant, trace.id), None) is not None:
                self.has_forgotten = True

    async def _read_logs(self, trace: Trace) -> None:
        """Read the logs of a trace. Raises OverwrittenError if one is deleted meanwhile."""
        trace.runs = []
        await self._read_waiting(trace)  # first: it is deleted after the run has begun
        run = await self.engine.find_run(RunKey(trace.tenant, trace.id))
        while run is not None:
            log = TraceLog(RunKey(trace.tenant, run.run_id))
            await self.logs.read(log, run)
            trace.runs.append(log)
            if not log.is_sealed:
                break
            run = await self.engine.find_run(self._next_key(trace))
        trace.is_read = True

    async def drain(self, principal: Principal | None, trace: Trace) -> None:
        """Move the spans of a trace that waited for an agent to its run, if it has one, and delete the log of those."""
        log = trace.waiting
        if not log.is_sealed:
            await self.logs.finish(log)  # another server that appends to it learns that the run has begun
        if trace.runs:
            waited = [each for each in await self.logs.received(log) if not trace.holds(each)]
            if waited and trace.open_run is not None:
                await self._append(principal, trace.open_run, waited)
            elif waited:
                await self._start_run(principal, trace, waited)
        await self.logs.delete(log)
        trace.waiting = TraceLog(log.key)

    async def _record(self, principal: Principal, trace_id: str, received: Sequence[ReceivedSpan]) -> None:
        for _ in range(_TRIES):
            trace = self.trace(principal.tenant, trace_id)
            async with self.using(trace):
                await self._place(principal, trace, received)
                trace.due_at = self.clock.monotonic() + self.quiet_time
                return
        raise unavailable(f"the log of trace {trace_id} is changed by other servers all the time; try again")

    async def _place(self, principal: Principal, trace: Trace, received: Sequence[ReceivedSpan]) -> None:
        """Record spans in the log where they belong.

        Two servers may begin at once, one with the run and one with the log in which the trace waits. Each writes
        first, and then looks whether the other one did.
        """
        if trace.runs and trace.waiting.exists:
            await self.drain(principal, trace)
        new = [each for each in received if not trace.holds(each)]
        if not new:
            return
        if (run := trace.open_run) is not None:
            await self._append(principal, run, new)
        elif trace.runs:
            await self._start_run(principal, trace, new)
        elif trace.waiting.is_sealed or any(each.reading.is_agent for each in new):
            if trace.waiting.exists and not trace.waiting.is_sealed:
                await self.logs.finish(trace.waiting)
            await self._start_run(principal, trace, [*await self.logs.received(trace.waiting), *new])
            await self._read_waiting(trace)
            if trace.waiting.exists:
                await self.drain(principal, trace)
        elif trace.waiting.exists:
            await self._append(principal, trace.waiting, new)
        else:
            await self._append(principal, trace.waiting, new, create=RunSettings(name=WAITING))
            if await self.engine.find_run(RunKey(trace.tenant, trace.id)) is not None:
                raise OverwrittenError

    async def _start_run(self, principal: Principal | None, trace: Trace, received: Sequence[ReceivedSpan]) -> None:
        log = TraceLog(self._next_key(trace))
        settings = self._settings(trace, received)
        if principal is not None:
            check_new_run(principal, log.key.run_id, settings)
        await self._append(principal, log, received, create=settings)
        trace.runs.append(log)

    async def _append(
        self,
        principal: Principal | None,
        log: TraceLog,
        received: Sequence[ReceivedSpan],
        create: RunSettings | None = None,
    ) -> None:
        events = await in_slices(step_events(received, log.content))
        if create is not None:
            events.insert(0, run_started(received))
        await self.logs.append(log, events, create=create, principal=principal)

    async def _read_waiting(self, trace: Trace) -> None:
        trace.waiting = TraceLog(trace.waiting.key)
        if (run := await self.engine.find_run(trace.waiting.key)) is not None:
            await self.logs.read(trace.waiting, run)

    def _next_key(self, trace: Trace) -> RunKey:
        count = len(trace.runs)
        return RunKey(trace.tenant, f"{trace.id}.{count + 1}" if count else trace.id)

    def _settings(self, trace: Trace, received: Sequence[ReceivedSpan]) -> RunSettings:
        # The root comes last, often in a later request: what others know of the run must do for its name.
        outermost = sorted(received, key=lambda each: (bool(each.parent_id), each.start_ns))
        readings = [each.reading for each in outermost]
        service = next((each.service for each in outermost if each.service), "")
        agent = next((reading.agent_name for reading in readings if reading.agent_name), "")
        first = next((reading for reading in readings if reading.is_agent), readings[0])
        settings = RunSettings(
            name=agent or service or first.name,
            labels={SOURCE_LABEL: "otlp", **({_SERVICE_LABEL: service} if service else {})},
            conversation_id=next((reading.conversation_id for reading in readings if reading.conversation_id), ""),
            parent_run_id=trace.id if trace.runs else "",
        )
        if received[0].has_trace:
            settings.producer_timeout.FromNanoseconds(round(self.idle_timeout * 1e9))
        return settings

    def _forget_some(self) -> None:
        while self._span_count > _MOST_SPANS and len(self._traces) > 1:
            self.forget(next(iter(self._traces.values())))
