"""The spans of a stored run, named as the instrumentation of pydantic-ai names them, for evaluators."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias

from pydantic_evals.otel.span_tree import SpanNode, SpanStatus, SpanTree

from lavant.client._reading.recording import Recording
from lavant.client._wire import json_text as _json
from lavant.client.events import Event
from lavant.client.models import ErrorInfo, Step, ToolCall, Usage
from lavant.client.states import RunState, StepKind, ToolCallOutcome

_Attributes: TypeAlias = dict[str, str | bool | int | float]
_TRACE_ID = 1
_EXECUTE_TOOL = "execute_tool"
_INVOKE_AGENT = "invoke_agent"
# By these attributes, evaluators recognise what only looks like a tool call: a call that was not allowed to run, and
# the output tool by which pydantic-ai has a model return its final answer.
_DEFERRED = "pydantic_ai.tool.deferral.name"
_MESSAGE = "logfire.msg"
_OUTPUT_TOOL = "final_result"


def span_tree_of(recording: Recording, name: str) -> SpanTree:
    """Return the run as one span, with its steps, tool calls and nested agents below it.

    A step of a tool and its call are one span. Earlier attempts of a retried step are left out. What never ended lasts
    until the run's end, as an error. Spans that begin at the same time are in the order of their events.
    """
    spans = _Spans(recording.events)
    result = recording.result
    root = spans.add(None, "", f"{_INVOKE_AGENT} {name}", _agent(name), result.state, result.error)
    for call in recording.tool_calls:
        if not call.step_id:
            spans.add_call(root, call)
    ids = {"": root}
    for step in (step for outermost in recording.steps for step in outermost.walk()):
        ids[step.id] = spans.add_step(ids.get(step.parent_id, root), step)
    return spans.tree()


def is_tool_call(node: SpanNode) -> bool:
    """Return whether a span is a tool that ran."""
    attributes = node.attributes
    return "gen_ai.tool.name" in attributes and _DEFERRED not in attributes and _MESSAGE not in attributes


def is_model_request(node: SpanNode) -> bool:
    """Return whether a span is a request to a model."""
    return node.attributes.get("gen_ai.operation.name") == "chat"


class _Spans:
    """Builder of spans from the first and last events of an ID; the run itself has the ID ''."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._begun: dict[str, Event] = {}
        self._ended: dict[str, Event] = {}
        self._models: dict[str, str] = {}
        self._nodes: list[tuple[int, SpanNode]] = []
        for event in events:
            self._read(event)

    def add(
        self,
        parent: int | None,
        key: str,
        name: str,
        attributes: _Attributes,
        outcome: RunState | ToolCallOutcome | None,
        error: ErrorInfo | None,
    ) -> int:
        """Add a span; return its id."""
        span_id = len(self._nodes) + 1
        if error is not None:
            attributes = attributes | {"error.type": error.type, "error.message": error.message}
        begun, ended = self._begun.get(key, self._begun[""]), self._ended.get(key, self._ended[""])
        node = SpanNode(
            name=name,
            trace_id=_TRACE_ID,
            span_id=span_id,
            parent_span_id=parent,
            start_timestamp=begun.time,
            end_timestamp=_no_earlier(ended.time, begun.time),
            attributes=dict(attributes),
            status=_status(outcome, error),
        )
        self._nodes.append((begun.sequence, node))
        return span_id

    def add_call(self, parent: int, call: ToolCall) -> int:
        """Add a tool call; return its id."""
        attributes = _tool(call.name, call.arguments, call.result) | {"gen_ai.tool.call.id": call.id}
        if call.outcome is ToolCallOutcome.DENIED:
            attributes[_DEFERRED] = call.error.type if call.error else call.outcome
        if call.name.startswith(_OUTPUT_TOOL):
            attributes[_MESSAGE] = f"running output function: {call.name}"
        return self.add(parent, f"call {call.id}", f"{_EXECUTE_TOOL} {call.name}", attributes, call.outcome, call.error)

    def add_step(self, parent: int, step: Step) -> int:
        """Add a step, and the calls in it; return its id."""
        is_tool = step.kind is StepKind.TOOL
        own_call = next((call for call in step.tool_calls if is_tool and call.name == step.name), None)
        if own_call is not None:
            span_id = self.add_call(parent, own_call)
        else:
            name, attributes = self._describe(step)
            span_id = self.add(parent, f"step {step.id}", name, attributes, step.state, step.error)
        for call in step.tool_calls:
            if call is not own_call:
                self.add_call(span_id, call)
        return span_id

    def tree(self) -> SpanTree:
        """Return the tree of all spans."""
        tree = SpanTree()
        tree.add_spans([node for _, node in sorted(self._nodes, key=lambda item: item[0])])
        return tree

    def _read(self, event: Event) -> None:
        self._begun.setdefault("", event)
        self._ended[""] = event
        match event.type:
            case "step_started":
                self._begun[f"step {event.data.step_id}"] = event
            case "step_finished":
                self._ended[f"step {event.data.step_id}"] = event
            case "tool_call_started":
                self._begun[f"call {event.data.call.tool_call_id}"] = event
            case "tool_call_finished":
                self._ended[f"call {event.data.tool_call_id}"] = event
            case "message_started" if event.data.model:
                self._models[event.step_id] = event.data.model

    def _describe(self, step: Step) -> tuple[str, _Attributes]:
        match step.kind:
            case StepKind.TOOL:
                return f"{_EXECUTE_TOOL} {step.name}", _tool(step.name, step.input, step.output)
            case StepKind.AGENT:
                name = step.name.removeprefix(f"{_INVOKE_AGENT} ")
                return f"{_INVOKE_AGENT} {name}", _agent(name)
            case StepKind.MODEL_REQUEST:
                usage = step.usage or Usage()
                model = self._models.get(step.id) or usage.model or step.name
                return f"chat {model}", _request(model, usage)
        return step.name, {"lavant.step.kind": step.kind.value}


def _agent(name: str) -> _Attributes:
    return {"gen_ai.operation.name": _INVOKE_AGENT, "gen_ai.agent.name": name}


def _request(model: str, usage: Usage) -> _Attributes:
    attributes: _Attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
    if usage.total_tokens:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
        }
    if usage.cost_usd is not None:
        attributes["operation.cost"] = usage.cost_usd
    return attributes


def _tool(name: str, arguments: object, result: object) -> _Attributes:
    attributes: _Attributes = {"gen_ai.operation.name": _EXECUTE_TOOL, "gen_ai.tool.name": name}
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = _json.encode(arguments)
    if result is not None:
        attributes["gen_ai.tool.call.result"] = _json.encode(result)
    return attributes


def _status(outcome: RunState | ToolCallOutcome | None, error: ErrorInfo | None) -> SpanStatus:
    if outcome in (RunState.SUCCEEDED, ToolCallOutcome.SUCCEEDED):
        return "ok"
    is_unknown = outcome in (RunState.UNSPECIFIED, ToolCallOutcome.UNSPECIFIED) and error is None
    return "unset" if is_unknown else "error"


def _no_earlier(time: datetime, than: datetime) -> datetime:
    return max(time, than)
