"""WatchRuns: the runs that match, then each change of state."""

import asyncio

from lavant.server.clock import Clock
from lavant.server.errors import unavailable
from lavant.server.rpc.validation import check_filter
from lavant.server.store.port import Engine, RunQuery
from lavant.server.streaming.calls import Caller, Calls
from lavant.server.streaming.cursors import Cursors, Listing
from lavant.server.streaming.outlet import Outlet
from lavant.v1.run_service_pb2 import WatchRunsRequest, WatchRunsResponse

_PAGE = 100
_HEARTBEAT = 15.0  # seconds


class RunWatcher:
    """Walks along the feed of changes, from its beginning or a token, for as long as the caller listens.

    The beginning of the feed is every run as it stands, the one that changed last at the end: so
    what is recorded and what is live are one walk, without a cut between them.
    """

    def __init__(self, engine: Engine, cursors: Cursors, calls: Calls, clock: Clock, stall_limit: float) -> None:
        self._engine = engine
        self._cursors = cursors
        self._calls = calls
        self._clock = clock
        self._stall_limit = stall_limit

    async def watch_runs(self, request: WatchRunsRequest, call: Caller) -> None:
        """See the contract."""
        check_filter("filter", request.filter)
        position = 0
        if request.resume_token:
            position = self._cursors.read(Listing.CHANGES, call.tenant, request.resume_token, "resume_token")
        query = RunQuery(tenant=call.tenant, limit=_PAGE, filter=request.filter)
        news = asyncio.Event()
        watch = self._engine.watch_changes(call.tenant, news.set)
        try:
            with self._calls.entered(news.set):
                await self._walk(query, position, news, Outlet(call.write, self._stall_limit))
        finally:
            watch.close()

    async def _walk(self, query: RunQuery, position: int, news: asyncio.Event, outlet: Outlet) -> None:
        sign_of_life_at = 0.0
        while not self._calls.draining:
            news.clear()
            changes, reached = await self._engine.list_changes(query, position)
            idle = reached == position
            position = reached
            if changes or self._clock.monotonic() >= sign_of_life_at:
                token = self._cursors.issue(Listing.CHANGES, query.tenant, position)
                response = WatchRunsResponse(resume_token=token, runs=[change.run for change in changes])
                await outlet.send(response.SerializeToString())
                sign_of_life_at = self._clock.monotonic() + _HEARTBEAT
            if idle:
                await self._sleep(news, sign_of_life_at)
        raise unavailable("the server is shutting down; resume with the token of the last frame")

    async def _sleep(self, news: asyncio.Event, until: float) -> None:
        timer = self._clock.call_at(until, news.set)
        try:
            await news.wait()
        finally:
            timer.cancel()
