"""Readings of log records: Claude Code's events, and the messages of the GenAI conventions up to 1.36."""

from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from lavant.server.otlp.readings import LogReading, MessageReading, read_log
from lavant.v1.event_pb2 import MessagePart, Role, Score, StepKind, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error, RunState, TokenUsage
from server.otlp.spans import SPAN_ID, START, any_value, key_values

SCOPE = "com.anthropic.claude_code.events"
STANDARD = {"session.id": "s-1", "prompt.id": "p-1", "event.sequence": 4, "terminal.type": "vscode"}
API_REQUEST = {
    "model": "claude-sonnet-5",
    "input_tokens": "12",
    "output_tokens": "340",
    "cache_read_tokens": "8000",
    "cache_creation_tokens": "500",
    "cost_usd": "0.0123",
    "duration_ms": "4210",
    "request_id": "req_011",
    "query_source": "repl_main_thread",
}
WEATHER = {"name": "weather", "arguments": '{"city":"Rome"}'}
TOOL = {"tool_name": "Bash", "tool_use_id": "toolu_01"}


def record_of(name: str, attributes: Mapping[str, Any], body: Any = None) -> LogRecord:
    """Return a record as Claude Code sends it: its name is the body, and an attribute without the prefix."""
    return LogRecord(
        time_unix_nano=START,
        body=any_value(name if body is None else body),
        attributes=key_values({**STANDARD, "event.name": name.removeprefix("claude_code."), **attributes}),
    )


def read(name: str, attributes: Mapping[str, Any]) -> LogReading:
    """Return the reading of one of Claude Code's records."""
    reading = read_log(record_of(name, attributes), {"service.version": "2.1.286"}, SCOPE)
    assert reading is not None
    return reading


def test_user_prompt_is_the_input_of_a_turn() -> None:
    reading = read("claude_code.user_prompt", {"prompt": "fix the test", "prompt_length": 12})
    assert (reading.conversation_id, reading.turn_id, reading.version) == ("s-1", "p-1", "2.1.286")
    assert reading.input_json == '"fix the test"'
    assert reading.messages == (MessageReading(Role.ROLE_USER, (MessagePart(text="fix the test"),), ""),)
    assert reading.is_agent
    redacted = read("claude_code.user_prompt", {"prompt": "<REDACTED>"})
    assert (redacted.input_json, redacted.messages) == ("", ())


def test_api_request_has_usage_with_cached_tokens_cost_and_duration() -> None:
    reading = read("claude_code.api_request", API_REQUEST)
    assert (reading.kind, reading.state) == (StepKind.STEP_KIND_MODEL_REQUEST, RunState.RUN_STATE_SUCCEEDED)
    assert reading.usage == TokenUsage(
        model="claude-sonnet-5",
        input_tokens=8512,
        output_tokens=340,
        cache_read_input_tokens=8000,
        cache_creation_input_tokens=500,
        requests=1,
        cost_usd=0.0123,
    )
    assert (reading.duration, reading.request_id) == (4.21, "req_011")


def test_assistant_response_is_a_message_of_the_same_request() -> None:
    reading = read("claude_code.assistant_response", {"response": "Done.", "model": "m", "request_id": "req_011"})
    assert reading.messages == (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(text="Done."),), ""),)
    assert (reading.usage, reading.request_id) == (None, "req_011")


@pytest.mark.parametrize(("status", "retryable"), [(529, True), (429, True), (400, False)])
def test_api_error_has_message_status_and_attempts(status: int, retryable: bool) -> None:
    reading = read("claude_code.api_error", {"error": "Overloaded", "status_code": status, "attempt": 3})
    assert reading.state == RunState.RUN_STATE_FAILED
    assert reading.error == Error(message="Overloaded", type=str(status), retryable=retryable)
    assert reading.attempt == 3


def test_tool_decision_starts_a_tool_or_denies_it() -> None:
    accepted = read("claude_code.tool_decision", {**TOOL, "decision": "accept", "source": "config"})
    assert accepted.state == RunState.RUN_STATE_RUNNING
    assert accepted.tool is not None
    assert accepted.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_UNSPECIFIED
    rejected = read("claude_code.tool_decision", {**TOOL, "decision": "reject", "source": "user_reject"})
    assert rejected.tool is not None
    assert rejected.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED
    assert rejected.error == Error(message="the tool was not permitted", type="user_reject")


def test_tool_result_has_call_outcome_and_duration() -> None:
    attributes = {**TOOL, "success": "true", "duration_ms": 57, "tool_input": '{"command":"ls"}'}
    reading = read("claude_code.tool_result", attributes)
    assert reading.tool is not None
    assert reading.tool.call == ToolCall(tool_call_id="toolu_01", tool_name="Bash", arguments_json='{"command":"ls"}')
    assert reading.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    assert reading.duration == 0.057
    failed = read(
        "claude_code.tool_result", {**TOOL, "success": "false", "error": "exit 1", "error_type": "ShellError"}
    )
    assert failed.error == Error(message="exit 1", type="ShellError")
    assert failed.tool is not None
    assert failed.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


def test_event_name_is_found_in_any_of_its_fields() -> None:
    attributes = key_values({"event.name": "user_prompt", "prompt": "hi"})
    for record in (
        LogRecord(event_name="claude_code.user_prompt", attributes=attributes),
        LogRecord(body=any_value("claude_code.user_prompt"), attributes=attributes),
        LogRecord(attributes=attributes),
    ):
        reading = read_log(record, {}, SCOPE)
        assert reading is not None
        assert (reading.name, reading.input_json) == ("claude_code.user_prompt", '"hi"')
    assert read_log(LogRecord(attributes=attributes), {}, "somebody else's") is None


def test_other_event_of_an_agent_has_a_name_only() -> None:
    reading = read("claude_code.mcp_server_connection", {"status": "connected"})
    assert (reading.name, reading.kind) == ("claude_code.mcp_server_connection", StepKind.STEP_KIND_UNSPECIFIED)
    assert read_log(LogRecord(body=any_value("GET / 200")), {}, "uvicorn") is None


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gen_ai.user.message", {"content": "hi"}, MessageReading(Role.ROLE_USER, (MessagePart(text="hi"),), "")),
        ("gen_ai.system.message", {"content": "hi"}, MessageReading(Role.ROLE_SYSTEM, (MessagePart(text="hi"),), "")),
        (
            "gen_ai.choice",
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "tool_calls": [{"id": "c-1", "type": "function", "function": WEATHER}],
                },
            },
            MessageReading(
                Role.ROLE_ASSISTANT,
                (
                    MessagePart(
                        tool_call=ToolCall(tool_call_id="c-1", tool_name="weather", arguments_json='{"city":"Rome"}')
                    ),
                ),
                "tool_calls",
            ),
        ),
    ],
)
def test_message_events_are_messages(name: str, body: Any, expected: MessageReading) -> None:
    record = LogRecord(event_name=name, body=any_value(body), span_id=SPAN_ID)
    reading = read_log(record, {}, "opentelemetry.instrumentation.openai_v2")
    assert reading is not None
    assert reading.messages == (expected,)
    assert reading.is_agent


def test_evaluation_result_is_a_score() -> None:
    attributes = {
        "gen_ai.evaluation.name": "relevance",
        "gen_ai.evaluation.score.label": "pass",
        "gen_ai.evaluation.score.value": 1.0,
    }
    reading = read_log(LogRecord(event_name="gen_ai.evaluation.result", attributes=key_values(attributes)), {}, "")
    assert reading is not None
    assert reading.scores == (Score(name="relevance", passed=True),)


def test_exception_event_is_no_agent_by_itself() -> None:
    attributes = key_values({"exception.type": "ValueError", "exception.message": "no"})
    reading = read_log(LogRecord(event_name="exception", attributes=attributes), {}, "app")
    assert reading is not None
    assert (reading.is_agent, reading.error) == (False, Error(message="no", type="ValueError"))
