"""RunService: creates, lists, cancels and deletes runs, and returns their snapshots."""

import asyncio
import secrets
from uuid import UUID

from lavant.contract.values import seconds_of
from lavant.server.auth.access import check_new_run, check_readable, check_visible
from lavant.server.auth.principal import Principal, Scope
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.clock import Clock
from lavant.server.model import RunKey, is_terminal
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Call, Service, server_stream, unary
from lavant.server.rpc.validation import DEFAULT_PAGE_SIZE, check_callers_run, check_settings_size
from lavant.server.rpc.watch_runs import RunWatcher, query_of
from lavant.server.store.port import Engine, Notice
from lavant.server.store.runs import new_run
from lavant.server.streaming.calls import Caller, Calls
from lavant.server.streaming.pacing import time_left, time_to_end
from lavant.server.streaming.tokens import Listing, PageTokens
from lavant.v1 import run_service_pb2 as pb
from lavant.v1.run_pb2 import Run

_DEFAULT_WAIT = 30.0


class RunService:
    """The RPCs of RunService; the contract describes each."""

    def __init__(
        self,
        engine: Engine,
        page_tokens: PageTokens,
        calls: Calls,
        clock: Clock,
        watcher: RunWatcher,
        quotas: RunQuotas,
    ) -> None:
        self._engine = engine
        self._page_tokens = page_tokens
        self._calls = calls
        self._clock = clock
        self._watcher = watcher
        self._quotas = quotas

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["RunService"].full_name,
            {
                "CreateRun": unary(pb.CreateRunRequest, self.create_run, Scope.RUNS_PUBLISH),
                "GetRun": unary(pb.GetRunRequest, self.get_run, Scope.RUNS_READ, Scope.RUNS_PUBLISH),
                "ListRuns": unary(pb.ListRunsRequest, self.list_runs, Scope.RUNS_READ),
                "WaitRun": unary(pb.WaitRunRequest, self.wait_run, Scope.RUNS_READ, Scope.RUNS_PUBLISH),
                "WatchRuns": server_stream(pb.WatchRunsRequest, self._watcher.watch_runs, Scope.RUNS_READ),
                "CancelRun": unary(pb.CancelRunRequest, self.cancel_run, Scope.RUNS_ADMIN, audited=True),
                "DeleteRun": unary(pb.DeleteRunRequest, self.delete_run, Scope.RUNS_ADMIN, audited=True),
            },
        )

    @checked(pb.CreateRunRequest)
    async def create_run(self, request: pb.CreateRunRequest, call: Call) -> pb.CreateRunResponse:
        """Create a run, or return the stored one if a first try created it."""
        check_settings_size("settings", request.settings)
        run_id = check_callers_run("run_id", request.run_id) if request.run_id else _mint_run_id(self._clock.time_ns())
        check_new_run(call.principal, run_id, request.settings)
        self._quotas.admit_run(call.principal, run_id, request.settings)
        run = await self._engine.create_run(RunKey(call.tenant, run_id), new_run(request.settings))
        return pb.CreateRunResponse(run=run)

    @checked(pb.GetRunRequest)
    async def get_run(self, request: pb.GetRunRequest, call: Caller) -> pb.GetRunResponse:
        """Return the snapshot of a run."""
        check_readable(call.principal, request.run_id)
        run = await self._engine.get_run(_key(request.run_id, call))
        return pb.GetRunResponse(run=check_visible(call.principal, run))

    @checked(pb.ListRunsRequest)
    async def list_runs(self, request: pb.ListRunsRequest, call: Caller) -> pb.ListRunsResponse:
        """Return a page of runs that match a filter."""
        before = self._page_tokens.read(Listing.RUNS, call.tenant, request.page_token, "page_token")
        query = query_of(call, request.filter, request.page_size or DEFAULT_PAGE_SIZE)
        page = await self._engine.list_runs(query, before)
        token = self._page_tokens.issue(Listing.RUNS, call.tenant, page.next_position)
        return pb.ListRunsResponse(runs=page.runs, next_page_token=token)

    @checked(pb.WaitRunRequest)
    async def wait_run(self, request: pb.WaitRunRequest, call: Call) -> pb.WaitRunResponse:
        """Wait until a run has ended, the given time has passed, or the caller's credential expires.

        A draining server answers at once.
        """
        check_readable(call.principal, request.run_id)
        key = _key(request.run_id, call)
        timeout = seconds_of(request.timeout) if request.HasField("timeout") else _DEFAULT_WAIT
        if (remaining := call.time_remaining()) is not None:
            timeout = min(timeout, time_to_end(remaining))
        timeout = min(timeout, time_left(call.principal.expires_ns, self._clock.time_ns()))
        ended = await self._wait_until_ended(call.principal, key, timeout, call.peer)
        return pb.WaitRunResponse(run=ended)

    @checked(pb.CancelRunRequest)
    async def cancel_run(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        """Record a request to cancel a run."""
        key = RunKey(call.tenant, check_callers_run("run_id", request.run_id))
        return pb.CancelRunResponse(run=await self._engine.cancel_run(key, request.reason, call.principal.restriction))

    @checked(pb.DeleteRunRequest)
    async def delete_run(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        """Delete a run and its log."""
        key = RunKey(call.tenant, check_callers_run("run_id", request.run_id))
        await self._engine.delete_run(key, call.principal.restriction)
        return pb.DeleteRunResponse()

    async def _wait_until_ended(self, principal: Principal, key: RunKey, timeout: float, peer: str) -> Run:
        """Return a run once it has ended, or its snapshot after `timeout` seconds; raises RUN_NOT_FOUND."""
        over = asyncio.Event()

        def look(notice: Notice) -> None:
            if notice.sealed or notice.deleted:
                over.set()

        with self._calls.entered(over.set, peer):
            run = check_visible(principal, await self._engine.get_run(key))
            if is_terminal(run.state):
                return run
            watch = self._engine.watch(key, look)  # its snapshot shows an end that has come since
            timer = self._clock.call_at(self._clock.monotonic() + timeout, over.set)
            try:
                await over.wait()
            finally:
                timer.cancel()
                watch.close()
        return check_visible(principal, await self._engine.get_run(key))


def _key(run_id: str, call: Caller) -> RunKey:
    return RunKey(call.tenant, run_id)


def _mint_run_id(now_ns: int) -> str:
    """Return a new UUIDv7 (RFC 9562, 5.7): IDs sort by the time of their creation."""
    value = (now_ns // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
