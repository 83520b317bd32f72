"""An evaluation's events, one after the other, and the position in them."""

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from lavant.client._async.stream import AsyncRunStream
from lavant.client._evaluations import EvaluationEvent, EvaluationProjection


class AsyncEvaluationStream(AsyncIterator[EvaluationEvent]):
    """What an evaluation tells, in order, each exactly once; reconnects by itself, unseen.

    Iterate over it once, in one task. The last event is `final`, or the `error` of one that did not end well. Leaving
    its `async with` block, or dropping the last reference to it, ends the call; it never cancels the evaluation.

    Example:
        async with client.evaluations.stream(evaluation_id) as stream:
            async for event in stream:
                if event.type == "row_complete":
                    break
        later = client.evaluations.stream(evaluation_id, resume_token=stream.resume_token)
        assert [event.row.id async for event in later if event.type == "row_complete"] == ["case 2"]
    """

    def __init__(self, evaluation_id: str, stream: AsyncRunStream) -> None:
        self._stream = stream
        self._projection = EvaluationProjection(evaluation_id)
        self._told: deque[EvaluationEvent] = deque()
        self._token_before = ""

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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EvaluationEvent:
        while not self._told:
            self._token_before = self._stream.resume_token
            self._told.extend(self._projection.add(await anext(self._stream)))
        return self._told.popleft()
