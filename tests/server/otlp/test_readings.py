"""Readings of spans by the current GenAI conventions, and of spans that are no agent's."""

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from lavant.server.otlp.readings import MessageReading, pending_of, read_span
from lavant.v1.event_pb2 import Evaluator, MessagePart, Role, Score, StepKind, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error, RunState, TokenUsage
from server.otlp.spans import SPAN_ID, reading_of, span_of

CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.response.model": "gpt-5-2025-08-07",
    "gen_ai.conversation.id": "thread-1",
    "gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]',
    "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Weather in Paris?"}]}]',
    "gen_ai.output.messages": json.dumps(
        [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": "A tool knows."},
                    {"type": "text", "content": "Let me see."},
                    {"type": "tool_call", "id": "call-1", "name": "weather", "arguments": {"city": "Paris"}},
                ],
                "finish_reason": "tool_call",
            }
        ]
    ),
    "gen_ai.usage.input_tokens": 120,
    "gen_ai.usage.output_tokens": 30,
    "gen_ai.usage.cache_read.input_tokens": 64,
    "gen_ai.usage.reasoning.output_tokens": 10,
}
HTTP = {
    "http.request.method": "GET",
    "url.full": "http://127.0.0.1/search?q=1",
    "server.address": "127.0.0.1",
    "server.port": 80,
    "network.protocol.version": "1.1",
    "http.response.status_code": 200,
    "user_agent.original": "python-httpx",
    "network.peer.address": "127.0.0.1",
    "network.peer.port": 80,
    "url.scheme": "http",
}


def test_model_request_has_messages_usage_and_input() -> None:
    reading = reading_of(CHAT, name="chat gpt-5")
    assert (reading.name, reading.kind) == ("chat gpt-5", StepKind.STEP_KIND_MODEL_REQUEST)
    assert reading.is_agent
    assert (reading.model, reading.conversation_id) == ("gpt-5-2025-08-07", "thread-1")
    assert (reading.state, reading.error) == (RunState.RUN_STATE_SUCCEEDED, None)
    assert json.loads(reading.input_json) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]},
    ]
    call = ToolCall(tool_call_id="call-1", tool_name="weather", arguments_json='{"city":"Paris"}')
    parts = (MessagePart(reasoning="A tool knows."), MessagePart(text="Let me see."), MessagePart(tool_call=call))
    assert reading.messages == (MessageReading(Role.ROLE_ASSISTANT, parts, "tool_call"),)
    assert json.loads(reading.output_json)[0]["finish_reason"] == "tool_call"
    assert reading.usage == TokenUsage(
        model="gpt-5-2025-08-07",
        input_tokens=120,
        output_tokens=30,
        cache_read_input_tokens=64,
        reasoning_output_tokens=10,
        requests=1,
    )


def test_messages_may_be_structured_attributes() -> None:
    structured = {name: json.loads(text) for name, text in CHAT.items() if isinstance(text, str) and text[0] == "["}
    assert reading_of({**CHAT, **structured}).messages == reading_of(CHAT).messages
    assert json.loads(reading_of({**CHAT, **structured}).input_json) == json.loads(reading_of(CHAT).input_json)


def test_tool_has_call_result_and_outcome() -> None:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.id": "call-1",
        "gen_ai.tool.call.arguments": '{"city": "Paris"}',
        "gen_ai.tool.call.result": "18 degrees",
    }
    reading = reading_of(attributes, name="execute_tool weather")
    assert (reading.name, reading.kind, reading.messages) == ("weather", StepKind.STEP_KIND_TOOL, ())
    assert reading.tool is not None
    assert reading.tool.call == ToolCall(tool_call_id="call-1", tool_name="weather", arguments_json='{"city": "Paris"}')
    assert reading.tool.result_json == '"18 degrees"' == reading.output_json
    assert reading.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    failed = reading_of(attributes, status=Status(code=Status.STATUS_CODE_ERROR))
    assert failed.tool is not None
    assert failed.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED
    running = reading_of(attributes, end=0)
    assert running.tool is not None
    assert running.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_UNSPECIFIED


def test_tool_without_an_id_has_that_of_the_span() -> None:
    reading = reading_of({"gen_ai.operation.name": "execute_tool"}, name="lookup")
    assert reading.tool is not None
    assert reading.tool.call == ToolCall(tool_call_id=SPAN_ID.hex(), tool_name="lookup")


def test_agent_has_name_version_and_output() -> None:
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "concierge",
        "gen_ai.agent.version": "3",
        "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"Done."}]}]',
        "gen_ai.usage.input_tokens": 200,
    }
    reading = reading_of(attributes, name="invoke_agent concierge")
    assert (reading.name, reading.agent_name, reading.version) == ("concierge", "concierge", "3")
    assert reading.kind == StepKind.STEP_KIND_AGENT
    assert reading.messages == ()
    assert "Done." in reading.output_json
    assert reading.usage == TokenUsage(input_tokens=200)


def test_version_is_that_of_the_service_unless_the_agent_has_one() -> None:
    span = span_of({"gen_ai.operation.name": "invoke_agent"})
    assert read_span(span, {"service.version": "1.2"}, "").version == "1.2"


def test_other_span_makes_no_run_unless_asked_for() -> None:
    reading = reading_of(HTTP, name="GET /search")
    assert (reading.name, reading.kind, reading.is_agent) == ("GET /search", StepKind.STEP_KIND_WORKFLOW, False)
    assert (reading.input_json, reading.usage, reading.tool) == ("", None, None)
    assert reading_of({**HTTP, "lavant.run": True}).is_agent
    assert reading_of({**HTTP, "lavant.run": "true"}).is_agent
    assert not reading_of({**HTTP, "lavant.run": False}).is_agent
    assert not reading_of({**HTTP, "session.id": "s-1"}).is_agent
    assert reading_of({**HTTP, "session.id": "s-1"}).conversation_id == "s-1"


EXCEPTION = {"exception": {"exception.type": "builtins.ValueError", "exception.message": "no such city"}}
ERROR = Status(code=Status.STATUS_CODE_ERROR, message="it broke")


@pytest.mark.parametrize(
    ("settings", "state", "error"),
    [
        ({"end": 0}, RunState.RUN_STATE_RUNNING, None),
        ({}, RunState.RUN_STATE_SUCCEEDED, None),
        ({"status": ERROR}, RunState.RUN_STATE_FAILED, Error(message="it broke", type="timeout")),
        (
            {"events": EXCEPTION},
            RunState.RUN_STATE_FAILED,
            Error(message="no such city", type="builtins.ValueError"),
        ),
        ({"events": EXCEPTION, "status": Status(code=Status.STATUS_CODE_OK)}, RunState.RUN_STATE_SUCCEEDED, None),
        (
            {"events": {"exception": {"exception.type": "asyncio.exceptions.CancelledError"}}, "status": ERROR},
            RunState.RUN_STATE_CANCELLED,
            Error(message="it broke", type="asyncio.exceptions.CancelledError"),
        ),
        (
            {"events": {"exception": {"exception.message": "lost"}}},
            RunState.RUN_STATE_FAILED,
            Error(message="lost", type="timeout"),
        ),
    ],
)
def test_state_follows_from_end_status_and_exceptions(settings: Any, state: Any, error: Error | None) -> None:
    reading = reading_of({"gen_ai.operation.name": "chat", "error.type": "timeout"}, **settings)
    assert (reading.state, reading.error) == (state, error)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ({"score.value": 0.75, "explanation": "on topic"}, Score(name="tone", number=0.75, explanation="on topic")),
        ({"score.value": 0.75, "score.label": "fair"}, Score(name="tone", number=0.75, explanation="fair")),
        ({"score.value": 1, "score.label": "pass"}, Score(name="tone", passed=True)),
        ({"score.label": "fail"}, Score(name="tone", passed=False)),
        ({"score.label": "rude"}, Score(name="tone", label="rude")),
        (
            {"explanation": "no key", "evaluator.version": "2"},
            Score(
                name="tone",
                explanation="no key",
                error=Error(message="no key", type="AuthError"),
                evaluator=Evaluator(name="tone", version="2"),
            ),
        ),
    ],
)
def test_result_of_an_evaluation_is_a_score(said: dict[str, Any], score: Score) -> None:
    attributes = {f"gen_ai.evaluation.{name}": value for name, value in {"name": "tone", **said}.items()}
    attributes["error.type"] = "AuthError"
    assert reading_of(CHAT, events={"gen_ai.evaluation.result": attributes}).scores == (score,)


def test_pending_span_announces_its_parent_as_running() -> None:
    attributes = {"logfire.span_type": "pending_span", "logfire.pending_parent_id": "00f067aa0ba902b7"}
    span = span_of({**CHAT, **attributes})
    span.parent_span_id = b"\x01" * 8
    assert pending_of(span) == (b"\x01" * 8, SPAN_ID)
    assert read_span(span, {}, "").state == RunState.RUN_STATE_RUNNING
    span.attributes[-1].value.string_value = "0" * 16
    assert pending_of(span) == (b"\x01" * 8, b"")
    assert pending_of(span_of(CHAT)) is None
