"""Readings of OpenTelemetry's spans and log records as agents' work, in whichever vocabulary they are written.

Nothing here raises, whatever a span has: names, ids and JSON texts are such that events may have them.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lavant.contract.text import to_id, to_name
from lavant.server.otlp.attributes import version_of
from lavant.server.otlp.content import (
    ToolReading,
    described,
    input_of,
    is_cancelled,
    messages_of,
    output_of,
    scores_of,
    tool_of,
    usage_of,
)
from lavant.server.otlp.events import add_events, add_listed
from lavant.server.otlp.findings import Findings, find
from lavant.server.otlp.logs import LogReading, read_log
from lavant.server.otlp.messages import MessageReading
from lavant.server.otlp.vocabularies import SCOPES, SPAN_NAMES
from lavant.server.otlp.vocabularies.vocabulary import Meaning
from lavant.v1.event_pb2 import Score, StepKind
from lavant.v1.run_pb2 import Error, RunState, TokenUsage

__all__ = ["LogReading", "MessageReading", "SpanReading", "ToolReading", "pending_of", "read_log", "read_span"]

_PENDING: Final = "pending_span"
_PENDING_PARENT: Final = "logfire.pending_parent_id"
_SPAN_TYPE: Final = "logfire.span_type"
_SPAN_ID_LENGTH: Final = 8
# Values of enums: a look-up costs more than all comparisons with them.
_WORKFLOW: Final = StepKind.STEP_KIND_WORKFLOW
_MODEL_REQUEST: Final = StepKind.STEP_KIND_MODEL_REQUEST
_TOOL: Final = StepKind.STEP_KIND_TOOL
_AGENT: Final = StepKind.STEP_KIND_AGENT
_RUNNING: Final = RunState.RUN_STATE_RUNNING
_SUCCEEDED: Final = RunState.RUN_STATE_SUCCEEDED
_OK: Final = Status.STATUS_CODE_OK
_ERROR: Final = Status.STATUS_CODE_ERROR


class SpanReading(NamedTuple):
    """Reading of a span. Texts are empty unless known.

    The usage of an agent or a workflow may be the sum of the usages within it. Only model requests have messages: an
    agent's output may be what a model within it has written.
    """

    name: str  # for people: the tool's or the agent's, else the span's
    kind: "StepKind.ValueType"
    is_agent: bool  # whether its trace is a run: an agent, a model or a tool worked, or `lavant.run` is true
    agent_name: str
    model: str
    version: str
    conversation_id: str
    state: "RunState.ValueType"  # RUNNING without an end time, else SUCCEEDED, FAILED or CANCELLED
    error: Error | None  # set if the state is FAILED or CANCELLED
    input_json: str
    output_json: str
    messages: tuple[MessageReading, ...]  # that a model wrote; those that it was given are in input_json
    tool: ToolReading | None  # set if a tool was executed
    usage: TokenUsage | None
    scores: tuple[Score, ...]


def read_span(span: Span, resource: Mapping[str, Any], scope: str) -> SpanReading:
    """Return what a span of the instrumentation scope `scope` says, with the attributes of its resource."""
    found = find(span.attributes, span.name)
    if span.events:
        found = add_events(found, span.events)
    name = to_name(span.name, default="span")
    named = SPAN_NAMES.get(span.name) or SCOPES.get(scope)
    state, error = _end_of(span, found)
    if found is None:
        if named is None:
            return _other(name, "", state, error)
        found = Findings()
    if not (found.is_agent or named is not None or _is_true(found.values.get(Meaning.REQUESTED))):
        return _other(found.name(Meaning.NAME) or name, found.name(Meaning.CONVERSATION), state, error)
    if Meaning.EVENTS in found.values:
        add_listed(found)
    kind = found.kind or named or found.implied or _WORKFLOW
    is_request = kind == _MODEL_REQUEST
    owner = to_id(span.span_id.hex()) or "span"
    tool = tool_of(found, owner, name, state) if kind == _TOOL else None
    model, agent_name = found.name(Meaning.MODEL), found.name(Meaning.AGENT_NAME)
    shown = tool.call.tool_name if tool else agent_name if kind == _AGENT else ""
    return SpanReading(
        name=shown or found.name(Meaning.NAME) or name,
        kind=kind,
        is_agent=True,
        agent_name=agent_name,
        model=model,
        version=found.name(Meaning.VERSION) or version_of(resource),
        conversation_id=found.name(Meaning.CONVERSATION),
        state=state,
        error=error,
        input_json=tool.call.arguments_json if tool else input_of(found, kind),
        output_json=tool.result_json if tool else output_of(found, kind),
        messages=messages_of(found, owner) if is_request else (),
        tool=tool,
        usage=usage_of(found, model, int(is_request)),
        scores=scores_of(found),
    )


def pending_of(span: Span) -> tuple[bytes, bytes] | None:
    """Return the ids of the span that a pending span of Logfire announces, and of its parent; None for other spans.

    The parent's is empty if it has none. A pending span is sent when the span that it announces starts: it has an id of
    its own, is a child of that span, and ends at once.
    """
    is_pending = False
    parent = ""
    for entry in span.attributes:
        if entry.key == _SPAN_TYPE:
            is_pending = entry.value.string_value == _PENDING
        elif entry.key == _PENDING_PARENT:
            parent = entry.value.string_value
    if not is_pending or len(span.parent_span_id) != _SPAN_ID_LENGTH:
        return None
    try:
        parent_id = bytes.fromhex(parent)
    except ValueError:
        parent_id = b""
    return span.parent_span_id, parent_id if len(parent_id) == _SPAN_ID_LENGTH and any(parent_id) else b""


def _other(name: str, conversation_id: str, state: "RunState.ValueType", error: Error | None) -> SpanReading:
    """Return the reading of a span that is no agent's, which is quick: most are such."""
    kind = _WORKFLOW
    return SpanReading(name, kind, False, "", "", "", conversation_id, state, error, "", "", (), None, None, ())


def _end_of(span: Span, found: Findings | None) -> tuple["RunState.ValueType", Error | None]:
    """Return how a span ended, and what went wrong."""
    if not span.end_time_unix_nano or (found is not None and found.values.get(Meaning.SPAN_TYPE) == _PENDING):
        return _RUNNING, None
    exception = found.exception if found is not None else None
    code = span.status.code
    if code == _OK or (code != _ERROR and exception is None):
        return _SUCCEEDED, None
    error = described(exception or found or Findings(), span.status.message, "failed")
    if not error.type and found is not None:
        error.type = found.name(Meaning.ERROR_TYPE)
    return RunState.RUN_STATE_CANCELLED if is_cancelled(error) else RunState.RUN_STATE_FAILED, error


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")
