"""RunService: creates runs, and tells where they stand."""

import asyncio
import secrets
from uuid import UUID

import grpc

from lavant.server.clock import Clock
from lavant.server.model import RunKey, is_terminal
from lavant.server.rpc.dispatch import Call, server_stream, unary
from lavant.server.rpc.validation import (
    check_callers_run,
    check_enum,
    check_filter,
    check_id,
    check_labels,
    check_page_size,
    check_seconds,
    check_text,
)
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.store.port import Engine, Notice, RunQuery
from lavant.server.streaming.calls import Caller, Calls
from lavant.server.streaming.cursors import Cursors, Listing
from lavant.server.streaming.timetable import time_to_end
from lavant.v1 import run_service_pb2 as pb
from lavant.v1.run_pb2 import Run, RunKind

_DEFAULT_WAIT = 30.0
_MAX_WAIT = 60.0
_MAX_PRODUCER_TIMEOUT = 30 * 24 * 3600.0


class RunService:
    """Each method as its comment in the contract says."""

    def __init__(self, engine: Engine, cursors: Cursors, calls: Calls, clock: Clock, watcher: RunWatcher) -> None:
        self._engine = engine
        self._cursors = cursors
        self._calls = calls
        self._clock = clock
        self._watcher = watcher

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return grpc.method_handlers_generic_handler(
            pb.DESCRIPTOR.services_by_name["RunService"].full_name,
            {
                "CreateRun": unary(pb.CreateRunRequest, self.create_run),
                "GetRun": unary(pb.GetRunRequest, self.get_run),
                "ListRuns": unary(pb.ListRunsRequest, self.list_runs),
                "WaitRun": unary(pb.WaitRunRequest, self.wait_run),
                "WatchRuns": server_stream(pb.WatchRunsRequest, self._watcher.watch_runs),
                "CancelRun": unary(pb.CancelRunRequest, self.cancel_run),
                "DeleteRun": unary(pb.DeleteRunRequest, self.delete_run),
            },
        )

    async def create_run(self, request: pb.CreateRunRequest, call: Call) -> pb.CreateRunResponse:
        """See the contract."""
        _check_settings(request)
        run_id = check_callers_run("run_id", request.run_id) if request.run_id else _mint_run_id(self._clock.time_ns())
        run = Run(
            run_id=run_id,
            kind=request.kind or RunKind.RUN_KIND_AGENT,
            name=request.name,
            labels=request.labels,
            parent_run_id=request.parent_run_id,
            conversation_id=request.conversation_id,
            producer_timeout=request.producer_timeout if request.HasField("producer_timeout") else None,
        )
        return pb.CreateRunResponse(run=await self._engine.create_run(RunKey(call.tenant, run_id), run))

    async def get_run(self, request: pb.GetRunRequest, call: Caller) -> pb.GetRunResponse:
        """See the contract."""
        return pb.GetRunResponse(run=await self._engine.get_run(_key(request.run_id, call)))

    async def list_runs(self, request: pb.ListRunsRequest, call: Caller) -> pb.ListRunsResponse:
        """See the contract."""
        check_filter("filter", request.filter)
        limit = check_page_size("page_size", request.page_size)
        before = None
        if request.page_token:
            before = self._cursors.read(Listing.RUNS, call.tenant, request.page_token, "page_token")
        query = RunQuery(tenant=call.tenant, limit=limit, filter=request.filter)
        page = await self._engine.list_runs(query, before)
        token = ""
        if page.next_position is not None:
            token = self._cursors.issue(Listing.RUNS, call.tenant, page.next_position)
        return pb.ListRunsResponse(runs=page.runs, next_page_token=token)

    async def wait_run(self, request: pb.WaitRunRequest, call: Call) -> pb.WaitRunResponse:
        """See the contract. A draining server answers at once."""
        key = _key(request.run_id, call)
        timeout = _DEFAULT_WAIT
        if request.HasField("timeout"):
            timeout = check_seconds("timeout", request.timeout, at_least=0, at_most=_MAX_WAIT)
        if (remaining := call.time_remaining()) is not None:
            timeout = min(timeout, time_to_end(remaining))
        await self._wait_until_ended(key, timeout)
        return pb.WaitRunResponse(run=await self._engine.get_run(key))

    async def cancel_run(self, request: pb.CancelRunRequest, call: Call) -> pb.CancelRunResponse:
        """See the contract."""
        reason = check_text("reason", request.reason, at_most=1_024)
        key = RunKey(call.tenant, check_callers_run("run_id", request.run_id))
        return pb.CancelRunResponse(run=await self._engine.cancel_run(key, reason))

    async def delete_run(self, request: pb.DeleteRunRequest, call: Call) -> pb.DeleteRunResponse:
        """See the contract."""
        await self._engine.delete_run(RunKey(call.tenant, check_callers_run("run_id", request.run_id)))
        return pb.DeleteRunResponse()

    async def _wait_until_ended(self, key: RunKey, timeout: float) -> None:
        over = asyncio.Event()

        def look(notice: Notice) -> None:
            if notice.sealed or notice.deleted:
                over.set()

        watch = self._engine.watch(key, look)
        timer = self._clock.call_at(self._clock.monotonic() + timeout, over.set)
        try:
            with self._calls.entered(over.set):
                if not is_terminal((await self._engine.get_run(key)).state):
                    await over.wait()
        finally:
            timer.cancel()
            watch.close()


def _check_settings(request: pb.CreateRunRequest) -> None:
    check_enum("kind", request.kind, dict(RunKind.items()))
    check_text("name", request.name, at_least=1)
    check_labels("labels", request.labels)
    check_text("conversation_id", request.conversation_id)
    if request.parent_run_id:
        check_id("parent_run_id", request.parent_run_id)
    if request.HasField("producer_timeout"):
        check_seconds("producer_timeout", request.producer_timeout, at_least=1, at_most=_MAX_PRODUCER_TIMEOUT)


def _key(run_id: str, call: Caller) -> RunKey:
    return RunKey(call.tenant, check_id("run_id", run_id))


def _mint_run_id(now_ns: int) -> str:
    """A UUIDv7 (RFC 9562, 5.7): ids sort by the time of their creation."""
    value = (now_ns // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
