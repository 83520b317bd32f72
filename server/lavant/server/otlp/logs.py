"""Readings of log records: events of agents that come without spans, or before their span has ended."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from lavant.contract.text import to_id
from lavant.server.otlp.attributes import json_text, value_of, values_of, version_of
from lavant.server.otlp.content import (
    ToolReading,
    described,
    input_of,
    messages_of,
    retryable,
    score_of,
    tool_of,
    usage_of,
)
from lavant.server.otlp.events import message_of
from lavant.server.otlp.findings import Findings, find
from lavant.server.otlp.messages import MessageReading, read_messages
from lavant.server.otlp.vocabularies import EVENTS, GIVEN, PREFIXES, WRITTEN
from lavant.server.otlp.vocabularies.vocabulary import EventKind, Meaning
from lavant.v1.event_pb2 import Score, StepKind
from lavant.v1.run_pb2 import Error, RunState, TokenUsage

_NAME: Final = "event.name"
_AGENTS: Final = ("gen_ai.", *PREFIXES)  # names of events that are an agent's, whether or not they have a meaning
_LONGEST_NAME: Final = 128
_MAX_INT32: Final = (1 << 31) - 1
_NO: Final = frozenset({"false", "0"})
_MODEL_REQUEST: Final = StepKind.STEP_KIND_MODEL_REQUEST
_KINDS: Final[Mapping[EventKind, "StepKind.ValueType"]] = {
    EventKind.DETAILS: _MODEL_REQUEST,
    EventKind.MODEL_REQUEST: _MODEL_REQUEST,
    EventKind.MODEL_ERROR: _MODEL_REQUEST,
    EventKind.TOOL: StepKind.STEP_KIND_TOOL,
    EventKind.DECISION: StepKind.STEP_KIND_TOOL,
    EventKind.SCORE: StepKind.STEP_KIND_EVALUATOR,
    EventKind.QUESTION: StepKind.STEP_KIND_AGENT,
}


class LogReading(NamedTuple):
    """Reading of a log record. Texts are empty unless known."""

    event: EventKind | None  # None: a message
    name: str  # of the event: "claude_code.tool_result"
    kind: "StepKind.ValueType"  # of the work that the record is about
    is_agent: bool  # whether its trace or conversation is an agent's; else it counts only where another record says so
    agent_name: str
    model: str
    version: str
    conversation_id: str
    turn_id: str  # shared by the records about one question of a person, which are a run where there is no trace
    request_id: str  # shared by the records about one request to a model
    state: "RunState.ValueType"  # of the work: UNSPECIFIED unless the record says that it started or ended
    error: Error | None
    input_json: str
    messages: tuple[MessageReading, ...]  # of any author
    tool: ToolReading | None
    usage: TokenUsage | None
    scores: tuple[Score, ...]
    duration: float | None  # seconds that the work took, which has ended at the time of the record
    attempt: int  # number of the attempt, from 1; 0 unless known


def read_log(record: LogRecord, resource: Mapping[str, Any], scope: str) -> LogReading | None:
    """Return what a record of the instrumentation scope `scope` says about an agent; None if it says nothing of one."""
    name = _name_of(record, scope)
    event = EVENTS.get(name)
    is_message = name in GIVEN or name in WRITTEN
    if event is None and not is_message:
        if not name.startswith(_AGENTS):
            return None
        event = EventKind.OTHER
    found = find(record.attributes, name) or Findings()
    owner = to_id(record.span_id.hex()) or f"log-{record.time_unix_nano or record.observed_time_unix_nano}"
    model = found.name(Meaning.MODEL)
    state, error = _state_of(event, found)
    kind = _MODEL_REQUEST if event is None else _KINDS.get(event, StepKind.STEP_KIND_UNSPECIFIED)
    is_tool = event in (EventKind.TOOL, EventKind.DECISION)
    is_request = event in (EventKind.MODEL_REQUEST, EventKind.DETAILS)
    is_question = event is EventKind.QUESTION
    milliseconds = found.number(Meaning.DURATION_MS)
    return LogReading(
        event=event,
        name=name,
        kind=kind,
        is_agent=name.startswith(_AGENTS) or found.is_agent,
        agent_name=found.name(Meaning.AGENT_NAME),
        model=model,
        version=found.name(Meaning.VERSION) or version_of(resource),
        conversation_id=found.name(Meaning.CONVERSATION),
        turn_id=found.name(Meaning.TURN),
        request_id=found.name(Meaning.REQUEST),
        state=state,
        error=error,
        input_json=_input_of(event, found, kind),
        messages=_messages_of(record, name, event, found, owner),
        tool=tool_of(found, owner, name, state) if is_tool else None,
        usage=usage_of(found, model, 1) if is_request else None,
        scores=_scores_of(event, found),
        duration=max(0.0, milliseconds) / 1_000 if milliseconds is not None and not is_question else None,
        attempt=min(found.count(Meaning.ATTEMPT), _MAX_INT32),
    )


def _name_of(record: LogRecord, scope: str) -> str:
    """Return the name of an event, which is in one of three fields, or without its prefix in an attribute."""
    names = [record.event_name, record.body.string_value]
    for entry in record.attributes:
        if entry.key == _NAME:
            names.append(entry.value.string_value)
            # Only the scope says whose event it is then.
            names += [prefix + entry.value.string_value for prefix in PREFIXES if prefix[:-1] in scope]
            break
    named = [name for name in names if 0 < len(name) <= _LONGEST_NAME]
    known = (name for name in named if name in EVENTS or name in GIVEN or name in WRITTEN or name.startswith(_AGENTS))
    return next(known, "")


def _state_of(event: EventKind | None, found: Findings) -> tuple["RunState.ValueType", Error | None]:
    failed, succeeded = RunState.RUN_STATE_FAILED, RunState.RUN_STATE_SUCCEEDED
    if event is EventKind.EXCEPTION:
        return RunState.RUN_STATE_UNSPECIFIED, described(found, "", "failed")
    if event is EventKind.MODEL_ERROR:
        status = found.text(Meaning.STATUS_CODE)
        error = described(found, "", "the model refused to answer")
        error.type = error.type or status
        error.retryable = retryable(found.count(Meaning.STATUS_CODE))
        return failed, error
    if event is EventKind.DECISION:
        if found.text(Meaning.DECISION) != "reject":
            return RunState.RUN_STATE_RUNNING, None
        decider = found.name(Meaning.DECIDER)
        return failed, Error(message="the tool was not permitted", type=decider)
    if event is EventKind.TOOL and found.text(Meaning.SUCCESS).lower() in _NO:
        return failed, described(found, "", "the tool failed")
    ended = event in (EventKind.TOOL, EventKind.MODEL_REQUEST, EventKind.DETAILS)
    return (succeeded if ended else RunState.RUN_STATE_UNSPECIFIED), None


def _input_of(event: EventKind | None, found: Findings, kind: "StepKind.ValueType") -> str:
    if event is EventKind.QUESTION:
        return json_text(found.values.get(Meaning.INPUT))
    return input_of(found, kind) if event is EventKind.DETAILS else ""


def _messages_of(
    record: LogRecord, name: str, event: EventKind | None, found: Findings, owner: str
) -> tuple[MessageReading, ...]:
    if event is None:
        body = value_of(record.body)
        # Later libraries send the message as attributes, without a body or with its name as one.
        said = body if isinstance(body, dict) else values_of(record.attributes)
        return read_messages(message_of(name, said), owner)
    if event is EventKind.QUESTION and (asked := found.values.get(Meaning.INPUT)) is not None:
        return read_messages({"role": "user", "content": asked}, owner)
    return messages_of(found, owner) if event in (EventKind.MODEL_REQUEST, EventKind.DETAILS) else ()


def _scores_of(event: EventKind | None, found: Findings) -> tuple[Score, ...]:
    score = score_of(found) if event is EventKind.SCORE else None
    return () if score is None else (score,)
