"""WatchRuns: the runs that match, then each change to them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from lavant.contract.limits import OWN_RUNS
from lavant.server.errors import invalid_field
from lavant.server.model import is_terminal
from lavant.server.rpc.bounds import checked
from lavant.server.store.port import RunQuery
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.frames import FrameWriter
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.tokens import Listing, PageTokens
from lavant.server.turns import Origin
from lavant.v1.event_service_pb2 import StreamEnd, StreamEndReason
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import RunFilter, WatchRunsRequest, WatchRunsResponse

_PAGE = 100
_MAX_DELETED = 1_000  # IDs in one frame
_HEARTBEAT = 15.0  # seconds
_TOKEN_AGE = 24 * 3600  # seconds; less than the time for which deletions are kept
_TIME_BITS = 40  # of a token's number: the time of its issue, in seconds


class RunWatcher:
    """Serves WatchRuns calls. Resume tokens hold a position in the feed of changes, and the time of their issue."""

    def __init__(self, shared: Streaming, tokens: PageTokens) -> None:
        self._shared = shared
        self._tokens = tokens

    @checked(WatchRunsRequest)
    async def watch_runs(self, request: WatchRunsRequest, call: Caller) -> None:
        """Stream the runs that match a filter, then each change to them."""
        position = self._read_token(call.tenant, request.resume_token)
        watch = _RunWatch(self, self._shared, call, request.filter, position)
        with self._shared.calls.entered(watch.wake, call.peer) as open_call:
            await watch.deliver(open_call.stall)

    def issue_token(self, tenant: str, position: int) -> str:
        """Return the resume token of a position."""
        seconds = self._shared.clock.time_ns() // 1_000_000_000
        return self._tokens.issue(Listing.CHANGES, tenant, position << _TIME_BITS | seconds)

    def _read_token(self, tenant: str, token: str) -> int | None:
        number = self._tokens.read(Listing.CHANGES, tenant, token, "resume_token")
        if number is None:
            return None
        issued = number & ((1 << _TIME_BITS) - 1)
        if self._shared.clock.time_ns() // 1_000_000_000 - issued > _TOKEN_AGE:
            raise invalid_field("resume_token", "is older than 24 hours; leave it empty to start with all runs")
        return number >> _TIME_BITS


class _RunWatch:
    """One WatchRuns call.

    The feed holds every run once, at the position of its last change of state. From its start on it is therefore the
    current state of all runs, followed by their changes.
    """

    def __init__(
        self, watcher: RunWatcher, shared: Streaming, call: Caller, wanted: RunFilter, position: int | None
    ) -> None:
        self._watcher = watcher
        self._engine = shared.engine
        self._shared = shared
        self._write = call.write
        self._is_new = position is None
        self._position = position or 0
        self._states = frozenset(wanted.states)
        self._matching = query_of(call, wanted, _PAGE)
        self._changing = self._matching
        if not all(is_terminal(state) for state in wanted.states):  # a run that has ended never leaves a filter
            of_any_state = RunFilter()
            of_any_state.CopyFrom(wanted)
            of_any_state.ClearField("states")
            self._changing = replace(self._matching, filter=of_any_state)
        remaining = call.time_remaining()
        deadline = None if remaining is None else shared.clock.monotonic() + remaining
        self._pacer = shared.pacer(heartbeat=_HEARTBEAT, idle=float("inf"), deadline=deadline)
        self.wake = self._pacer.wake

    async def deliver(self, on_stall: Callable[[], None]) -> None:
        """Send frames up to a planned end, or raise what ended the stream."""
        self._writer = FrameWriter(self._write, self._shared.stalls, on_stall)
        tenant = self._matching.tenant
        # In turn with the readers of runs, each of which counts as much as all watches of a tenant.
        wake_up = partial(self._shared.hub.wake_ups.wake, Origin(tenant), self.wake)
        watch = self._engine.watch_changes(tenant, wake_up)
        try:
            head: int | None = await self._engine.last_change(tenant, self._position)
            while (reason := self._shared.planned_end(self._pacer)) is None:
                if self._position == head:
                    head = None
                    await self._send(WatchRunsResponse(caught_up=True))
                elif self._pacer.heartbeat_due():
                    await self._send(WatchRunsResponse())
                if not await self._send_changes(head):
                    await self._pacer.sleep(float("inf"))
            await self._send(WatchRunsResponse(end=self._end(reason)))
        finally:
            watch.close()

    async def _send_changes(self, head: int | None) -> bool:
        """Send the next changes, up to a position if there is one; returns whether there were any."""
        snapshot = self._is_new and head is not None  # nothing was sent yet that could leave or be deleted
        query = self._matching if snapshot else self._changing
        changes, reached = await self._engine.list_changes(query, self._position, head)
        if reached == self._position:
            return False
        deleted: Sequence[str] = ()
        if not snapshot:
            deleted = await self._engine.list_deletions(query.tenant, self._position, reached, query.within)
            if not query.system_runs:
                deleted = [run_id for run_id in deleted if not run_id.startswith(OWN_RUNS)]
        while len(deleted) > _MAX_DELETED:  # each with the token from before, so that none is skipped
            await self._send(WatchRunsResponse(deleted_run_ids=deleted[:_MAX_DELETED]))
            deleted = deleted[_MAX_DELETED:]
        self._position = reached
        runs = [change.run for change in changes]
        frame = WatchRunsResponse(
            runs=filter(self._matches, runs),
            left_run_ids=(run.run_id for run in runs if not self._matches(run) and _has_started(run)),
            deleted_run_ids=deleted,
        )
        del changes, runs  # while the reader takes its time, the frame is all that is kept
        if frame.ByteSize():
            await self._send(frame)
        return True

    def _matches(self, run: Run) -> bool:
        return not self._states or run.state in self._states

    async def _send(self, frame: WatchRunsResponse) -> None:
        frame.resume_token = self._watcher.issue_token(self._matching.tenant, self._position)
        data = frame.SerializeToString()
        frame.Clear()
        await self._writer.send(data)
        self._pacer.sent(events=False)

    def _end(self, reason: "StreamEndReason.ValueType") -> StreamEnd:
        end = StreamEnd(reason=reason, reconnect=True)
        end.retry_delay.FromNanoseconds(int(self._shared.retry_delay(reason, self._pacer) * 1e9))
        return end


def query_of(call: Caller, wanted: RunFilter, limit: int) -> RunQuery:
    """Return the query of the runs that a caller wants and may see."""
    return RunQuery(
        tenant=call.tenant,
        limit=limit,
        filter=wanted,
        within=call.principal.restriction,
        system_runs=wanted.include_system_runs,
    )


def _has_started(run: Run) -> bool:
    """Return whether a run has had an earlier state, in which it may have matched."""
    return run.state != RunState.RUN_STATE_QUEUED
