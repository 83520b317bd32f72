"""An evaluation's events, one after the other, and the position in them."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from lavant.client._async.concurrency import UsageHints
from lavant.client._async.stream import AsyncRunStream
from lavant.client._evaluations import EvaluationEvent, EvaluationProjection
from lavant.client._events import Event


class AsyncEvaluationStream(UsageHints, AsyncIterator[EvaluationEvent]):
    """What an evaluation tells, in order, each exactly once; reconnects by itself, unseen.

    One loop at a time, as over a run's stream; a loop after its end reads the same events again. A `status` comes first
    whenever the stream is opened, also by a reconnect, unless the evaluation has ended. The last event is `final`, or
    the `error` of one that did not end well. Leaving its `async with` block, or dropping the last reference to it, ends
    the call; it never cancels the evaluation.

    Example:
        async with client.evaluations.stream(evaluation_id) as stream:
            async for event in stream:
                if event.type == "row_complete":
                    break
        later = client.evaluations.stream(evaluation_id, resume_token=stream.resume_token)
        assert [event.row.id async for event in later if event.type == "row_complete"] == ["case 2"]
    """

    def __init__(self, evaluation_id: str, stream: AsyncRunStream) -> None:
        stream.reports_state = True
        self._stream = stream
        self._id = evaluation_id
        self._projection = EvaluationProjection(evaluation_id)
        self._told: deque[EvaluationEvent] = deque()
        self._token_before = ""

    @property
    def run_stream(self) -> AsyncRunStream:
        """The stream of the evaluation's run that this one reads."""
        return self._stream

    @property
    def is_between_events(self) -> bool:
        """Whether all is handed out that the last event of the run told."""
        return not self._told

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: behind the last event handed out; empty before the first.

        A `status` that another event comes with, such as the last one with `final`, is told again until that was
        handed out as well: nothing is ever missed.
        """
        return self._token_before if self._told else self._stream.resume_token

    async def aclose(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[EvaluationEvent]:
        return self._replay() if self._stream.is_at_end and not self._told else self._loop()

    async def __anext__(self) -> EvaluationEvent:
        return await self._next(self._stream)

    async def _loop(self) -> AsyncIterator[EvaluationEvent]:
        events = aiter(self._stream)
        with suppress(StopAsyncIteration):
            while True:
                yield await self._next(events)

    async def _next(self, events: AsyncIterator[Event]) -> EvaluationEvent:
        while not self._told:
            self._token_before = self._stream.resume_token
            self._told.extend(self._projection.add(await anext(events)))
        return self._told.popleft()

    async def _replay(self) -> AsyncIterator[EvaluationEvent]:
        projection = EvaluationProjection(self._id)
        async for event in self._stream:
            for told in projection.add(event):
                yield told
