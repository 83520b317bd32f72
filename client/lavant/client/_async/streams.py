"""Opens streams of runs."""

from collections.abc import Sequence
from dataclasses import replace
from time import time_ns

from lavant.client._async.calls import Call
from lavant.client._async.connection import Connection
from lavant.client._async.limits import Limits
from lavant.client._async.stream import AsyncRunStream
from lavant.client._async.subscription import Subscription
from lavant.client._ids import new_id
from lavant.client._models import Run
from lavant.client._plan import Handler, StreamPlan
from lavant.client._sessions import Sessions
from lavant.v1.event_service_pb2 import StreamEventsResponse
from lavant.v1.run_service_pb2 import GetRunRequest


class Streams:
    """What all streams of a client share: the connection, and whose sessions they continue."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sessions = Sessions()

    def open(
        self,
        plan: StreamPlan,
        resume_token: str = "",
        *,
        limits: Limits,
        reconnect_timeout: float | None,
        handlers: Sequence[Handler] = (),
        handler_timeout: float = 30.0,
    ) -> AsyncRunStream:
        """Make a stream; a plan without a consumer gets one of its own. No call is made yet."""
        session = self._sessions.begin(plan.run_id, plan.consumer_id)

        def subscribe(token: str, session_id: str) -> Subscription[StreamEventsResponse]:
            if session_id and plan.consumer_id:
                # Its earlier attempts may be another process's: of attempts by the clock, the later one is the newer.
                session.id, session.attempt = session_id, time_ns()
            own = replace(plan, consumer_id=plan.consumer_id or f"anonymous-{new_id()}", session_id=session.id)

            def open_call(attempt: int, token: str, opened: bool) -> Call[StreamEventsResponse]:
                return self._connection.stream_events(own.request(attempt, token, opened=opened))

            return Subscription(
                self._connection,
                open_call,
                session,
                self._sessions,
                resume_token=token,
                limits=limits,
                reconnect_timeout=reconnect_timeout,
                heartbeat_interval=plan.heartbeat_interval,
            )

        def read_again(token: str) -> AsyncRunStream:
            again = replace(plan, consumer_id="", deltas="none" if plan.deltas == "none" else "all")
            return self.open(again, token, limits=limits, reconnect_timeout=reconnect_timeout)

        async def get_run(timeout: float | None) -> Run:
            return await self._get_run(plan.run_id, timeout)

        return AsyncRunStream(
            plan.run_id,
            subscribe,
            get_run,
            read_again,
            limits,
            resume_token=resume_token,
            handlers=handlers,
            handler_timeout=handler_timeout,
        )

    async def _get_run(self, run_id: str, timeout: float | None) -> Run:
        limit = self._connection.timeout if timeout is None else min(timeout, self._connection.timeout)
        request = GetRunRequest(run_id=run_id)
        return Run.from_proto((await self._connection.call(lambda lane: lane.runs.GetRun, request, limit)).run)
