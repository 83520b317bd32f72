"""What happens within one root of LangChain's, as events of a run. Only queues, never waits."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from langchain_core.messages import ToolMessage
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk, LLMResult
from langchain_core.tools import ToolException

from lavant.client import LavantError, Usage, _json, _payloads
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_message import AnswerRecorder, message_of
from lavant.client.integrations._message_recorder import Log
from lavant.client.integrations._recorder import Recorder
from lavant.v1.event_pb2 import Event, ToolCallOutcome

try:
    from langgraph.errors import GraphBubbleUp
except ImportError:

    class GraphBubbleUp(Exception):  # type: ignore[no-redef]
        """Stands in where LangGraph is not installed: raised by nobody."""


if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData


class Run(Log, Protocol):
    """A run's producer, of either kind."""

    usage: Usage | None


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """A LangChain run at work; `step` is the key of the step that it is, or that it is part of."""

    parent: "_Open | None"
    step: UUID | None
    kind: str
    answer: AnswerRecorder | None = None
    calls: dict[str, str] = field(default_factory=dict)


class RootRecorder:
    """Records a root and all within it, by the ids of LangChain's runs. Not thread-safe.

    The root is the run itself, or with `is_step` a step of it. Runnables that are mere plumbing are not
    shown: what happens in them belongs to the next one around. What is still at work when the one around
    it fails was cut off, and is recorded as cancelled.
    """

    def __init__(self, run: Run, outer_step_id: str = "", *, is_step: bool) -> None:
        self.is_streamed = False
        self._run = run
        self._is_step = is_step
        self._steps = Recorder(run, outer_step_id)
        self._open: dict[UUID, _Open] = {}
        self._used_call_ids: set[str] = set()
        self._usage = Usage()

    def begin(self, begun: Begun) -> None:
        """Something began: the root first."""
        parent = self._open.get(begun.parent) if begun.parent else None
        within = parent.step if parent else None
        is_root = not self._open
        opened = self._open[begun.key] = _Open(parent=parent, step=begun.key, kind=begun.kind)
        if begun.kind == "tool":
            call_id = self._claim(begun, parent)
            self._steps.begin_tool(begun.key, begun.name, begun.input, call_id=call_id, parent=within)
        elif begun.kind == "model_request":
            self._steps.begin_step(begun.key, begun.name, "model_request", parent=within)
            message = self._steps.message(begun.key, begun.model or begun.name)
            opened.answer = AnswerRecorder(message, lambda given: self._steps.call_id(begun.key, given))
        elif begun.kind == "retrieval":
            self._steps.begin_step(begun.key, begun.name, "retrieval", parent=within, input=begun.input)
        elif is_root and self._is_step:
            self._steps.begin_step(begun.key, begun.name, "agent", input=begun.input)
        elif begun.is_shown and not is_root:
            self._steps.begin_step(begun.key, begun.name, parent=within, input=begun.input)
        else:
            opened.step = within

    def step_of(self, key: UUID) -> str:
        """Return the id of a step at work; empty: there is none."""
        return self._steps.step_of(key) if key in self._open else ""

    def token(self, key: UUID, text: object, chunk: GenerationChunk | ChatGenerationChunk | None) -> None:
        """A model said more."""
        if answer := self._answer(key):
            answer.token(text, chunk)

    def stream_event(self, key: UUID, event: "MessagesData") -> None:
        """A model said more, in a protocol event."""
        if answer := self._answer(key):
            answer.event(event)

    def retried(self, key: UUID, error: BaseException) -> None:
        """Something failed and is tried again."""
        self._tell(key, _payloads.error_reported(_payloads.error_of(error)))

    def custom(self, key: UUID, name: str, value: object) -> None:
        """The application dispatched an event of its own."""
        self._tell(key, _payloads.custom(name, _json.bounded(value)))

    def end(self, key: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended, and with it all that is still at work in it."""
        opened = self._open.get(key)
        if opened is None:
            return
        cut = asyncio.CancelledError("cut off") if error else LavantError("its end was not reported")
        for inner in [inner for inner, other in self._open.items() if other.parent is opened]:
            self.end(inner, error=cut)
        del self._open[key]
        if opened.answer is not None:
            usage = self._finish_answer(opened, output if isinstance(output, LLMResult) else None)
            self._steps.end(key, error=error, usage=usage)
        elif opened.kind == "tool":
            self._end_tool(key, output, error)
        elif isinstance(error, GraphBubbleUp) and opened.parent:
            # How a graph's node waits for a person, or hands over: it did not fail.
            self._steps.end(key, output=error.args)
        else:
            self._steps.end(key, output=output, error=error, usage=None if opened.parent else self._usage)

    def _end_tool(self, key: UUID, output: object, error: BaseException | None) -> None:
        if isinstance(error, GraphBubbleUp):
            self._steps.end(key, output=error.args, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
            return
        if isinstance(output, ToolMessage) and output.status == "error":
            error = ToolException(str(output.text))
        self._steps.end(key, output=value_of(output), error=error)

    def _finish_answer(self, opened: _Open, result: LLMResult | None) -> Usage:
        assert opened.answer is not None  # noqa: S101
        usage = opened.answer.finish(result)
        around = opened.parent
        while around is not None:
            around.calls.update(opened.answer.calls)
            around = around.parent
        self._usage += usage
        self._run.usage = usage + (self._run.usage or Usage())
        progress = _payloads.progress("", None, None, self._usage.requests, self._run.usage)
        progress.step_id = self._steps.step_of(opened.parent.step if opened.parent else None)
        self._run.enqueue(progress)
        return usage

    def _claim(self, begun: Begun, around: _Open | None) -> str:
        """Name a tool's call as the model did that asked for it: the last one to do so in the nearest common place."""
        asked = begun.call_id
        while around is not None and asked not in around.calls:
            around = around.parent
        call_id = around.calls[asked] if around else ""
        if not call_id or call_id in self._used_call_ids:
            call_id = str(begun.key)
        self._used_call_ids.add(call_id)
        return call_id

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
    if isinstance(output, LLMResult):
        return message_of(output)
    return output.content if isinstance(output, ToolMessage) else output
