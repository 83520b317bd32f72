"""What happens within one root of LangChain's, as events of a run. Only queues, never waits."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from langchain_core.messages import ToolMessage
from langchain_core.outputs import LLMResult
from langchain_core.tools import ToolException

from lavant.client import LavantError, Usage, _payloads
from lavant.client.integrations._answer_calls import call_key
from lavant.client.integrations._conversation import asked
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_message import AnswerRecorder, described, message_of
from lavant.client.integrations._message_recorder import Log
from lavant.client.integrations._recorder import Recorder
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text
from lavant.v1.event_pb2 import Event, ToolCallOutcome

try:
    from langgraph.errors import GraphBubbleUp
except ImportError:

    class GraphBubbleUp(Exception):  # type: ignore[no-redef]
        """Stands in where LangGraph is not installed: raised by nobody."""


class Run(Log, Protocol):
    """A run's producer, of either kind."""

    usage: Usage | None


class _Open:
    """A LangChain run at work; `step` is the key of the step that it is, or that it is part of."""

    __slots__ = ("answer", "calls", "inner", "kind", "parent", "step")

    def __init__(self, begun: Begun, parent: "_Open | None") -> None:
        self.parent = parent
        self.step: UUID | None = begun.key
        self.kind = begun.kind
        self.answer: AnswerRecorder | None = None
        # The calls that models asked for in it and that no tool has executed yet: ids in the run.
        self.calls: dict[str, deque[str]] = {}
        self.inner: dict[UUID, None] = {}


class RootRecorder:
    """Records a root and all within it, by the ids of LangChain's runs. Not thread-safe.

    The root is the run itself, or with `is_step` a step of it. Runnables that are mere plumbing are not
    shown: what happens in them belongs to the next one around. What is still at work when the one around
    it fails was cut off, and is recorded as cancelled. What of it all cannot be recorded is lost alone: see Guard.
    """

    def __init__(self, run: Run, guard: Guard, outer_step_id: str = "", *, is_step: bool) -> None:
        self.is_streamed = False
        self._run = run
        self._guard = guard
        self._is_step = is_step
        self._steps = Recorder(run, outer_step_id)
        self._open: dict[UUID, _Open] = {}
        self._requests = 0

    def begin(self, begun: Begun) -> None:
        """Something began: the root first. What is at work already is not begun again."""
        if begun.key in self._open:
            return
        parent = self._open.get(begun.parent) if begun.parent else None
        is_root = not self._open
        opened = self._open[begun.key] = _Open(begun, parent)
        if parent is not None:
            parent.inner[begun.key] = None
        with self._guard:
            self._begin(begun, opened, is_root)

    def step_of(self, key: UUID) -> str:
        """Return the id of a step at work; empty: there is none."""
        return self._steps.step_of(key) if key in self._open else ""

    def token(self, key: UUID, text: object, chunk: object) -> None:
        """A model said more."""
        if answer := self._answer(key):
            with self._guard:
                answer.token(text, chunk)

    def stream_event(self, key: UUID, event: Mapping[str, Any]) -> None:
        """A model said more, in a protocol event."""
        if answer := self._answer(key):
            with self._guard:
                answer.event(event)

    def retried(self, key: UUID, error: BaseException) -> None:
        """Something failed and is tried again."""
        with self._guard:
            self._tell(key, _payloads.error_reported(_payloads.error_of(error)))

    def custom(self, key: UUID, name: object, value: object) -> None:
        """The application dispatched an event of its own."""
        with self._guard:
            self._tell(key, _payloads.custom(name, value))

    def end(self, key: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended, and with it all that is still at work in it."""
        if key not in self._open:
            return
        within = [key]
        for around in within:
            within.extend(self._open[around].inner)
        cut = LavantError("its end was not reported") if error is None else asyncio.CancelledError("cut off")
        for inner in within[:0:-1]:
            self._end(inner, None, cut)
        self._end(key, output, error)

    def _begin(self, begun: Begun, opened: _Open, is_root: bool) -> None:
        parent = opened.parent
        within = parent.step if parent else None
        if begun.kind == "tool":
            call_id = self._claim(begun, parent)
            self._steps.begin_tool(
                begun.key,
                begun.name,
                begun.input,
                call_id=call_id,
                original_id=begun.call_id or None,
                parent=within,
            )
        elif begun.kind == "model_request":
            given = begun.input if type(begun.input) is list else [begun.input]
            self._steps.begin_step(
                begun.key, begun.name, "model_request", parent=within, input_json=asked(given, described)
            )
            message = self._steps.message(begun.key, begun.model or begun.name)
            opened.answer = AnswerRecorder(message, ToolCallIds(self._steps.step_of(begun.key)), self._guard)
        elif begun.kind == "retrieval":
            self._steps.begin_step(begun.key, begun.name, "retrieval", parent=within, input=begun.input)
        elif is_root and self._is_step:
            self._steps.begin_step(begun.key, begun.name, "agent", input=begun.input)
        elif begun.is_shown and not is_root:
            self._steps.begin_step(begun.key, begun.name, parent=within, input=begun.input)
        else:
            opened.step = within

    def _end(self, key: UUID, output: object, error: BaseException | None) -> None:
        opened = self._open.pop(key)
        if opened.parent is not None:
            opened.parent.inner.pop(key, None)
        with self._guard:
            if opened.answer is not None:
                self._end_request(key, opened, opened.answer, output, error)
            elif opened.kind == "tool":
                self._end_tool(key, output, error)
            elif isinstance(error, GraphBubbleUp) and opened.parent:
                # How a graph's node waits for a person, or hands over: it did not fail.
                self._steps.end(key, output=error.args)
            else:
                self._steps.end(key, output=output, error=error)

    def _end_request(
        self, key: UUID, opened: _Open, answer: AnswerRecorder, output: object, error: BaseException | None
    ) -> None:
        usage = answer.finish(output)
        said = None
        with self._guard:
            said = list(described(message_of(output))) if issubclass(type(output), LLMResult) else None
        self._steps.end(key, output=said, error=error, usage=usage)
        for call, ids in answer.calls.by_key().items():
            around = opened.parent
            while around is not None:
                # One queue for all around: a call is executed once.
                around.calls[call] = ids
                around = around.parent
        self._run.usage = usage + (self._run.usage or Usage())
        self._requests += 1
        progress = _payloads.progress("", None, None, self._requests, self._run.usage)
        progress.step_id = self._steps.step_of(opened.parent.step if opened.parent else None)
        self._run.enqueue(progress)

    def _end_tool(self, key: UUID, output: object, error: BaseException | None) -> None:
        if isinstance(error, GraphBubbleUp):
            self._steps.end(key, output=error.args, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
            return
        if issubclass(type(output), ToolMessage) and getattr(output, "status", "") == "error":
            error = ToolException(to_text(getattr(output, "text", None)))
        self._steps.end(key, output=value_of(output), error=error)

    def _claim(self, begun: Begun, around: _Open | None) -> str:
        """Name a tool's call as the model did that asked for it: the last one to do so in the nearest common place."""
        call = call_key(begun.call_id, begun.name)
        while around is not None:
            if waiting := around.calls.get(call):
                return waiting.popleft()
            around = around.parent
        return str(begun.key)

    def _answer(self, key: UUID) -> AnswerRecorder | None:
        self.is_streamed = True
        opened = self._open.get(key)
        return opened.answer if opened else None

    def _tell(self, key: UUID, event: Event) -> None:
        opened = self._open.get(key)
        event.step_id = self._steps.step_of(opened.step if opened else None)
        self._run.enqueue(event)


def value_of(output: object) -> object:
    """Return what a reader wants of an output: a model's message, a tool's content."""
    if issubclass(type(output), LLMResult):
        return message_of(output)
    return getattr(output, "content", None) if issubclass(type(output), ToolMessage) else output
