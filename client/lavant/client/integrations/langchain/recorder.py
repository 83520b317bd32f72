"""The components of one LangChain invocation as events of a run. Only queues, never waits."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Literal, Self
from uuid import UUID

from langchain_core.messages import ToolMessage
from langchain_core.outputs import LLMResult
from langchain_core.tools import ToolException

from lavant.client import LavantError
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.langchain.answers import (
    add_event,
    add_token,
    describe,
    finish_answer,
    message_of,
    value_of,
)
from lavant.client.integrations.recording.messages import AnswerRecorder
from lavant.client.integrations.recording.reading import field
from lavant.client.integrations.recording.runs import RunLog
from lavant.client.integrations.recording.steps import ModelRequests, StepRecorder
from lavant.contract.text import to_name, to_text
from lavant.v1.event_pb2 import Event, ToolCallOutcome

try:
    from langgraph.errors import GraphBubbleUp
except ImportError:

    class GraphBubbleUp(Exception):  # type: ignore[no-redef]
        """Stands in where LangGraph is not installed: raised by nobody."""


Kind = Literal["chain", "model_request", "tool", "retrieval"]

_HIDDEN_TAG = "langsmith:hidden"
_HIDDEN_TYPES = ("prompt", "parser")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComponentStart:
    """The start of a runnable, model, tool or retriever; `key` is LangChain's run id."""

    key: UUID
    parent: UUID | None
    kind: Kind
    name: str
    input: object
    is_shown: bool
    model: str = ""
    call_id: str = ""
    conversation_id: str = ""

    @classmethod
    def read(cls, kind: Kind, serialized: object, given: object, report: Mapping[str, Any]) -> Self:
        """Read the arguments of an `on_..._start`. Never raises."""
        metadata = report.get("metadata")
        model = ""
        if kind == "model_request":
            requested = field(report.get("invocation_params"), "model", "model_name")
            model = to_name(field(metadata, "ls_model_name")) or to_name(requested)
        name = model or to_name(report.get("name")) or to_name(field(serialized, "name")) or kind
        return cls(
            key=report["run_id"],
            parent=report.get("parent_run_id"),
            kind=kind,
            name=name,
            input=None if kind == "chain" and _has_no_input(given, report) else given,
            is_shown=kind != "chain" or _is_shown(name, report),
            model=model,
            call_id=to_text(report.get("tool_call_id")),
            conversation_id=to_text(field(metadata, "thread_id")),
        )


def _is_shown(name: str, report: Mapping[str, Any]) -> bool:
    """Return whether readers want to see a chain: a graph's node, a function, one with a name of its own."""
    tags = report.get("tags")
    is_hidden = type(tags) is list and any(to_text(tag) == _HIDDEN_TAG for tag in tags)
    return not is_hidden and to_text(report.get("run_type")) not in _HIDDEN_TYPES and not name.startswith("Runnable")


def _has_no_input(given: object, report: Mapping[str, Any]) -> bool:
    """Return whether an input says nothing: one that streams in, or a graph's whole state, which outputs make up."""
    if field(report.get("metadata"), "langgraph_node") is not None:
        return True
    # LangChain's stand-in for an input that is not known yet is {"input": ""}.
    is_stand_in = type(given) is dict and len(given) == 1 and field(given, "input") is not None
    return "defers_inputs" in report and is_stand_in and to_text(field(given, "input")) == ""


@dataclass(slots=True, eq=False)
class _Component:
    """A component that has started and not ended; `step` is the key of the step that it is, or that it is part of."""

    step: UUID | None
    kind: Kind
    parent: "_Component | None"
    answer: AnswerRecorder | None = None
    source: str = ""
    # Calls of models in it that no tool has executed yet: their ids in the run, by the model's id or the tool.
    calls: dict[str, deque[str]] = dataclass_field(default_factory=dict)
    children: dict[UUID, None] = dataclass_field(default_factory=dict)


class InvocationRecorder:
    """Records an invocation and its components, by LangChain's run ids. Not thread-safe.

    The invocation is the run itself, or with `is_step` a step of it. Components that are not shown have no step: what
    happens in them belongs to the next one around. What is open when the component around it fails was cut off, and
    is recorded as cancelled. What cannot be recorded is lost alone: see Guard.
    """

    def __init__(self, run: RunLog, guard: Guard, outer_step_id: str = "", *, is_step: bool) -> None:
        self.is_streamed = False
        self._run = run
        self._guard = guard
        self._is_step = is_step
        self._steps = StepRecorder(run, outer_step_id)
        self._requests = ModelRequests(run, self._steps, guard)
        self._open: dict[UUID, _Component] = {}

    def start(self, start: ComponentStart) -> None:
        """Record the start of a component: the outermost first. One that is open is not started again."""
        if start.key in self._open:
            return
        parent = self._open.get(start.parent) if start.parent else None
        is_outermost = not self._open
        component = self._open[start.key] = _Component(start.key, start.kind, parent)
        if parent is not None:
            parent.children[start.key] = None
        with self._guard:
            self._start_step(start, component, is_outermost)

    def step_id(self, key: UUID) -> str:
        """Return the id of an open step; empty if there is none."""
        return self._steps.step_id(key) if key in self._open else ""

    def token(self, key: UUID, token: object, chunk: object) -> None:
        """Record more of a model's answer."""
        if answer := self._streamed_answer(key, "tokens"):
            with self._guard:
                add_token(answer, token, chunk)

    def stream_event(self, key: UUID, event: Mapping[str, Any]) -> None:
        """Record more of a model's answer, in an event of the streaming protocol."""
        if answer := self._streamed_answer(key, "events"):
            with self._guard:
                add_event(answer, event)

    def retried(self, key: UUID, error: BaseException) -> None:
        """Record an error after which a component is retried."""
        with self._guard:
            self._enqueue(key, _payloads.error_reported(_payloads.error_of(error)))

    def custom(self, key: UUID, name: object, value: object) -> None:
        """Record an event of the application's own."""
        with self._guard:
            self._enqueue(key, _payloads.custom(name, value))

    def finish(self, key: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Record the end of a component, after that of all that is open in it."""
        if key not in self._open:
            return
        within = [key]
        for around in within:
            within.extend(self._open[around].children)
        cut = LavantError("its end was not reported") if error is None else asyncio.CancelledError("cut off")
        for child in within[:0:-1]:
            self._finish(child, None, cut)
        self._finish(key, output, error)

    def _start_step(self, start: ComponentStart, component: _Component, is_outermost: bool) -> None:
        parent = component.parent.step if component.parent else None
        if start.kind == "tool":
            call_id, original_id = self._take_call(start, component.parent), start.call_id or None
            self._steps.start_tool(
                start.key, start.name, start.input, call_id=call_id, original_id=original_id, parent=parent
            )
        elif start.kind == "model_request":
            messages = start.input if type(start.input) is list else [start.input]
            component.answer = self._requests.start(
                start.key, start.name, messages, describe, model=start.model, parent=parent
            )
        elif start.kind == "retrieval":
            self._steps.start(start.key, start.name, "retrieval", parent=parent, input=start.input)
        elif is_outermost and self._is_step:
            self._steps.start(start.key, start.name, "agent", input=start.input)
        elif start.is_shown and not is_outermost:
            self._steps.start(start.key, start.name, parent=parent, input=start.input)
        else:
            component.step = parent

    def _finish(self, key: UUID, output: object, error: BaseException | None) -> None:
        component = self._open.pop(key)
        if component.parent is not None:
            component.parent.children.pop(key, None)
        with self._guard:
            if component.answer is not None:
                self._finish_request(key, component, component.answer, output, error)
            elif component.kind == "tool":
                self._finish_tool(key, output, error)
            elif isinstance(error, GraphBubbleUp) and component.parent:
                # How a graph's node waits for a person, or hands over: it did not fail.
                self._steps.finish(key, output=error.args)
            else:
                self._steps.finish(key, output=output, error=error)

    def _finish_request(
        self, key: UUID, component: _Component, answer: AnswerRecorder, output: object, error: BaseException | None
    ) -> None:
        usage, described = finish_answer(answer, output, self._guard), None
        with self._guard:
            described = list(describe(message_of(output))) if issubclass(type(output), LLMResult) else None
        expected: dict[str, deque[str]] = {}
        for call in answer.calls:
            expected.setdefault(call.original_id or call.name, deque()).append(call.id)
        around = component.parent
        while around is not None:
            # One queue for all around: a call is executed once.
            around.calls.update(expected)
            around = around.parent
        step_id = self._steps.step_id(component.parent.step if component.parent else None)
        self._requests.finish(key, step_id=step_id, usage=usage, output=described, error=error)

    def _finish_tool(self, key: UUID, output: object, error: BaseException | None) -> None:
        if isinstance(error, GraphBubbleUp):
            self._steps.finish(key, output=error.args, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
            return
        if issubclass(type(output), ToolMessage) and getattr(output, "status", "") == "error":
            error = ToolException(to_text(getattr(output, "text", None)))
        self._steps.finish(key, output=value_of(output), error=error)

    def _take_call(self, start: ComponentStart, around: _Component | None) -> str:
        """Return the id of the call that a tool executes: the latest one of a model in the nearest component around."""
        call = start.call_id or start.name
        while around is not None:
            if waiting := around.calls.get(call):
                return waiting.popleft()
            around = around.parent
        return str(start.key)

    def _streamed_answer(self, key: UUID, source: str) -> AnswerRecorder | None:
        self.is_streamed = True
        component = self._open.get(key)
        if component is None:
            return None
        # Some models report each chunk in both ways: the first one that is used counts.
        component.source = component.source or source
        return component.answer if component.source == source else None

    def _enqueue(self, key: UUID, event: Event) -> None:
        component = self._open.get(key)
        event.step_id = self._steps.step_id(component.step if component else None)
        self._run.enqueue(event)
