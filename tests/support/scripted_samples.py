"""A server of samples that follows a test's script, call by call: for what a good server seldom does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_service_pb2 import ListEventsRequest, ListEventsResponse, StreamEnd
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED, Run
from support.events import run_finished, run_started
from support.scripted import Context, abort

SampleAct = Callable[[pb.SampleRunsRequest, Context], AsyncIterator[pb.SampleRunsResponse]]


class SampleScript:
    """Plays one act a stream, and answers completions in order, then well; remembers what it was asked.

    All runs exist and have ended, but those whose ids are among the `unreadable`.
    """

    def __init__(
        self,
        *acts: SampleAct,
        answers: Sequence[Status | None] = (),
        answers_after: asyncio.Event | None = None,
        unreadable: Sequence[str] = (),
    ) -> None:
        self.requests: list[pb.SampleRunsRequest] = []
        self.completed: list[pb.CompleteSampleRequest] = []
        self.changed = asyncio.Condition()
        self._acts = iter(acts)
        self._answers = iter(answers)
        self._answers_after = answers_after
        self._unreadable = unreadable

    async def completions(self, count: int) -> list[pb.CompleteSampleRequest]:
        """Wait until so many completions came."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.completed) >= count)
        return self.completed

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        """What to serve."""
        sample = grpc.unary_stream_rpc_method_handler(
            self._sample, pb.SampleRunsRequest.FromString, pb.SampleRunsResponse.SerializeToString
        )
        complete = grpc.unary_unary_rpc_method_handler(
            self._complete, pb.CompleteSampleRequest.FromString, pb.CompleteSampleResponse.SerializeToString
        )
        events = grpc.unary_unary_rpc_method_handler(
            self._list_events, ListEventsRequest.FromString, ListEventsResponse.SerializeToString
        )
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"SampleRuns": sample, "CompleteSample": complete}
        yield grpc.method_handlers_generic_handler("lavant.v1.EvaluationService", methods)
        yield grpc.method_handlers_generic_handler("lavant.v1.EventService", {"ListEvents": events})

    async def _sample(self, request: Any, context: Any) -> AsyncIterator[pb.SampleRunsResponse]:
        self.requests.append(request)
        async for frame in next(self._acts)(request, context):
            yield frame

    async def _complete(self, request: Any, context: Any) -> pb.CompleteSampleResponse:
        answer = next(self._answers, None)
        async with self.changed:
            self.completed.append(request)
            self.changed.notify_all()
        if self._answers_after is not None:
            await self._answers_after.wait()
        if answer is not None:
            await abort(context, answer)
        return pb.CompleteSampleResponse()

    async def _list_events(self, request: Any, _: Any) -> ListEventsResponse:
        if request.run_id in self._unreadable:
            return ListEventsResponse(events=[run_started()])
        events = [run_started(), run_finished()]
        for sequence, event in enumerate(events, 1):
            event.sequence = sequence
        return ListEventsResponse(events=events)


def opened(*evaluators: str, max_attempts: int = 5) -> pb.SampleRunsResponse:
    """The first frame."""
    rule = Rule(rule_id="quality", max_attempts=max_attempts)
    for name in evaluators:
        rule.evaluators.add(name=name)
    frame = pb.SampleRunsResponse(resume_token="t0", opened=pb.SamplesOpened(rule=rule))
    frame.opened.heartbeat_interval.FromMilliseconds(15_000)
    return frame


def samples(*run_ids: str, token: str = "t1", attempt: int = 1) -> pb.SampleRunsResponse:
    """A frame of samples."""
    runs = [Run(run_id=run_id, name="agent", state=RUN_STATE_SUCCEEDED) for run_id in run_ids]
    batch = pb.SampleBatch(samples=[pb.Sample(run=run, attempt=attempt) for run in runs])
    return pb.SampleRunsResponse(resume_token=token, samples=batch)


def caught_up(token: str = "t2") -> pb.SampleRunsResponse:
    """A frame that says that no sample is left to assign."""
    return pb.SampleRunsResponse(resume_token=token, caught_up=pb.SamplesCaughtUp())


def end(*, reconnect: bool) -> pb.SampleRunsResponse:
    """The last frame."""
    return pb.SampleRunsResponse(resume_token="te", end=StreamEnd(reconnect=reconnect))


async def for_ever() -> None:
    """Wait until the call is cancelled."""
    await asyncio.Event().wait()
