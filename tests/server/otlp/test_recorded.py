"""Readings of what real libraries sent for the same conversation: whatever the vocabulary, it reads the same."""

import json
from typing import NamedTuple

import pytest

from lavant.server.otlp.readings import SpanReading, pending_of, read_log, read_span
from lavant.v1.event_pb2 import Role, StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState
from server.otlp.recorded import RecordedSpan, recorded_logs, recorded_spans

REQUEST, TOOL, AGENT, WORKFLOW = (
    StepKind.STEP_KIND_MODEL_REQUEST,
    StepKind.STEP_KIND_TOOL,
    StepKind.STEP_KIND_AGENT,
    StepKind.STEP_KIND_WORKFLOW,
)


class Expected(NamedTuple):
    """What differs between the libraries."""

    kinds: tuple[int, ...]  # of the spans, in the order in which they were sent
    calls: int = 1  # of the tool, as the model asked for them
    root: str = ""  # name of the agent or workflow, if it has a span
    conversation: str = ""
    tokens: tuple[int, int, int, int] = (120, 30, 64, 10)  # input, output, read from a cache, reasoning; of the first
    has_reasoning: bool = False


EXPECTED = {
    "logfire-3": Expected((REQUEST, REQUEST), tokens=(120, 30, 0, 0)),
    "openinference": Expected((TOOL, AGENT, REQUEST, REQUEST), root="concierge", conversation="session-1"),
    "openllmetry": Expected((REQUEST, REQUEST, WORKFLOW), root="assistant", conversation="session-1"),
    "openllmetry-0.40": Expected(
        (REQUEST, REQUEST, WORKFLOW), root="assistant", conversation="session-1", tokens=(120, 30, 64, 0)
    ),
    "pydantic-ai": Expected(
        (REQUEST, TOOL, REQUEST, TOOL, REQUEST, AGENT), 2, "concierge", "thread-1", (100, 20, 40, 0), True
    ),
    "pydantic-ai-2": Expected(
        (REQUEST, TOOL, REQUEST, TOOL, REQUEST, AGENT), 2, "concierge", "thread-1", (100, 20, 40, 0), True
    ),
    "vercel-ai": Expected(
        (REQUEST, TOOL, WORKFLOW, REQUEST, WORKFLOW, AGENT), 1, "concierge", "", (120, 30, 64, 0), True
    ),
    "vercel-ai-legacy": Expected((TOOL, REQUEST, REQUEST, AGENT), root="concierge", has_reasoning=True),
}


def readings_of(name: str) -> list[SpanReading]:
    """Return the readings of a fixture's spans."""
    return [read_span(*recorded) for recorded in recorded_spans(name)]


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_recorded_conversation_reads_the_same(name: str, expected: Expected) -> None:
    readings = readings_of(name)
    assert tuple(reading.kind for reading in readings) == expected.kinds
    assert all(reading.is_agent for reading in readings)
    assert {reading.version for reading in readings} == {"1.0"}
    requests = [reading for reading in readings if reading.kind == REQUEST]
    parts = [part for reading in requests for message in reading.messages for part in message.parts]
    calls = [part.tool_call for part in parts if part.HasField("tool_call")]
    assert [call.tool_name for call in calls] == ["weather"] * expected.calls
    assert json.loads(calls[-1].arguments_json) == {"city": "Paris"}
    assert [part.text for part in parts if part.text] == ["18 degrees in Paris."]
    assert [part.reasoning for part in parts if part.reasoning] == ["A tool knows."] * expected.has_reasoning
    assert all(message.role == Role.ROLE_ASSISTANT for reading in requests for message in reading.messages)
    for reading in requests:
        assert "Weather in Paris?" in reading.input_json
        assert "Be brief." in reading.input_json
    usage = requests[0].usage
    assert usage is not None
    assert usage.requests == 1
    assert expected.tokens == (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.reasoning_output_tokens,
    )


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_recorded_root_has_name_conversation_and_question(name: str, expected: Expected) -> None:
    found = [reading for reading in readings_of(name) if reading.name == expected.root]
    assert len(found) == bool(expected.root)
    for reading in found:
        assert (reading.agent_name, reading.conversation_id) == (expected.root, expected.conversation)
        assert "Weather in Paris?" in reading.input_json
        assert "18 degrees in Paris." in reading.output_json
        assert reading.messages == ()


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if TOOL in expected.kinds])
def test_recorded_tool_has_the_call_of_the_model(name: str) -> None:
    readings = readings_of(name)
    asked = {
        part.tool_call.tool_call_id: json.loads(part.tool_call.arguments_json)
        for reading in readings
        for message in reading.messages
        for part in message.parts
        if part.HasField("tool_call")
    }
    tools = [reading.tool for reading in readings if reading.tool is not None]
    assert tools[-1].result_json == "18"
    assert tools[-1].outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    for tool in tools:
        arguments = json.loads(tool.call.arguments_json)
        # The tool's span that is written by hand has no id of its call.
        assert arguments == asked[tool.call.tool_call_id if name != "openinference" else "call-1"]
    if name.startswith("pydantic-ai"):
        assert tools[0].outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED
        assert tools[0].result_json == '"no such city"'


def test_recorded_pending_spans_announce_the_spans_that_follow() -> None:
    spans = list(recorded_spans("logfire"))
    pending = [(recorded, ids) for recorded in spans if (ids := pending_of(recorded.span)) is not None]
    ended = {recorded.span.span_id: recorded for recorded in spans if pending_of(recorded.span) is None}
    assert {ids[0] for _, ids in pending} == set(ended)
    for recorded, (span_id, parent_id) in pending:
        later: RecordedSpan = ended[span_id]
        assert parent_id == later.span.parent_span_id
        announced, reading = read_span(*recorded), read_span(*later)
        assert (announced.state, reading.state) == (RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_SUCCEEDED)
        assert (announced.name, announced.kind, announced.input_json) == (
            reading.name,
            reading.kind,
            reading.input_json,
        )
        assert announced.usage is None


def test_recorded_log_events_are_the_messages_of_the_conversation() -> None:
    readings = [read_log(*recorded) for recorded in recorded_logs("genai-1.36-logs")]
    messages = [message for reading in readings if reading is not None for message in reading.messages]
    written = [message for message in messages if message.role == Role.ROLE_ASSISTANT]
    assert [message.role for message in messages] == [
        Role.ROLE_SYSTEM,
        Role.ROLE_USER,
        Role.ROLE_ASSISTANT,
        Role.ROLE_SYSTEM,
        Role.ROLE_USER,
        Role.ROLE_ASSISTANT,
        Role.ROLE_TOOL,
        Role.ROLE_ASSISTANT,
    ]
    assert [message.finish_reason for message in written] == ["tool_calls", "", "stop"]
    assert written[0].parts == written[1].parts
    assert written[2].parts[0].text == "18 degrees in Paris."
