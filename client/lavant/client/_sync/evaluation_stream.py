# Made from _async/evaluation_stream.py by client/unasync.py: change that one.
"""An evaluation's events, one after the other, and the position in them."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from lavant.client._evaluations import EvaluationEvent, EvaluationProjection
from lavant.client._events import Event
from lavant.client._sync.concurrency import UsageHints
from lavant.client._sync.stream import RunStream


class EvaluationStream(UsageHints, Iterator[EvaluationEvent]):
    """What an evaluation tells, in order, each exactly once; reconnects by itself, unseen.

    One loop at a time, as over a run's stream; a loop after its end reads the same events again. A `status` comes first
    whenever the stream is opened, also by a reconnect, unless the evaluation has ended. The last event is `final`, or
    the `error` of one that did not end well. Leaving its `with` block, or dropping the last reference to it, ends
    the call; it never cancels the evaluation.

    Example:
        with client.evaluations.stream(evaluation_id) as stream:
            for event in stream:
                if event.type == "row_complete":
                    break
        later = client.evaluations.stream(evaluation_id, resume_token=stream.resume_token)
        assert [event.row.id for event in later if event.type == "row_complete"] == ["case 2"]
    """

    def __init__(self, evaluation_id: str, stream: RunStream) -> None:
        stream.reports_state = True
        self._stream = stream
        self._id = evaluation_id
        self._projection = EvaluationProjection(evaluation_id)
        self._told: deque[EvaluationEvent] = deque()
        self._token_before = ""

    @property
    def run_stream(self) -> RunStream:
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

    def close(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[EvaluationEvent]:
        return self._replay() if self._stream.is_at_end and not self._told else self._loop()

    def __next__(self) -> EvaluationEvent:
        return self._next(self._stream)

    def _loop(self) -> Iterator[EvaluationEvent]:
        events = iter(self._stream)
        with suppress(StopIteration):
            while True:
                yield self._next(events)

    def _next(self, events: Iterator[Event]) -> EvaluationEvent:
        while not self._told:
            self._token_before = self._stream.resume_token
            self._told.extend(self._projection.add(next(events)))
        return self._told.popleft()

    def _replay(self) -> Iterator[EvaluationEvent]:
        projection = EvaluationProjection(self._id)
        for event in self._stream:
            for told in projection.add(event):
                yield told
