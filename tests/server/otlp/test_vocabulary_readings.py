"""Readings of spans in vocabularies of which there is no recording: as their documentation has them."""

import json
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lavant.server.otlp.readings import MessageReading, read_span
from lavant.v1.event_pb2 import MessagePart, Role, Score, StepKind, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import TokenUsage
from server.otlp.spans import key_values, reading_of, span_of

CALL = MessagePart(tool_call=ToolCall(tool_call_id="c-1", tool_name="weather", arguments_json='{"city":"Paris"}'))


class Case(NamedTuple):
    """A span's name and attributes, and what its reading has."""

    name: str
    attributes: dict[str, Any]
    expected: dict[str, Any]


CASES = {
    "Claude Code's turn": Case(
        "claude_code.interaction",
        {"span.type": "interaction", "session.id": "s-1", "user_prompt": "fix it"},
        {"kind": StepKind.STEP_KIND_AGENT, "conversation_id": "s-1", "input_json": '"fix it"'},
    ),
    "Claude Code's request": Case(
        "claude_code.llm_request",
        {
            "span.type": "llm_request",
            "model": "claude-sonnet-5",
            "gen_ai.request.model": "claude-sonnet-5",
            "input_tokens": 2,
            "output_tokens": 1200,
            "cache_read_tokens": 84562,
            "cache_creation_tokens": 7096,
            "success": True,
        },
        {
            "kind": StepKind.STEP_KIND_MODEL_REQUEST,
            "usage": TokenUsage(
                model="claude-sonnet-5",
                input_tokens=91660,
                output_tokens=1200,
                cache_read_input_tokens=84562,
                cache_creation_input_tokens=7096,
                requests=1,
            ),
        },
    ),
    "Claude Code's tool": Case(
        "claude_code.tool",
        {"span.type": "tool", "tool_name": "Bash", "tool_use_id": "toolu_1", "gen_ai.tool.call.id": "toolu_1"},
        {"kind": StepKind.STEP_KIND_TOOL, "name": "Bash"},
    ),
    "a part of Claude Code's tool": Case(
        "claude_code.tool.execution",
        {"span.type": "tool.execution", "gen_ai.tool.call.id": "toolu_1", "success": True},
        {"kind": StepKind.STEP_KIND_WORKFLOW, "tool": None},
    ),
    "Langfuse's generation": Case(
        "answer",
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-5",
            "langfuse.observation.input": '[{"role":"user","content":"hi"}]',
            "langfuse.observation.output": '{"role":"assistant","content":"hello"}',
            "langfuse.session.id": "s-2",
            "session.id": "s-1",
        },
        {
            "kind": StepKind.STEP_KIND_MODEL_REQUEST,
            "model": "gpt-5",
            "conversation_id": "s-2",
            "messages": (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(text="hello"),), ""),),
        },
    ),
    "ADK's request": Case(
        "call_llm",
        {
            "gen_ai.system": "gcp.vertex.agent",
            "gen_ai.request.model": "gemini",
            "gcp.vertex.agent.session_id": "s-3",
            "gcp.vertex.agent.llm_response": json.dumps(
                {
                    "content": {
                        "role": "model",
                        "parts": [
                            {"text": "Let me see."},
                            {"function_call": {"id": "c-1", "name": "weather", "args": {"city": "Paris"}}},
                        ],
                    },
                    "finish_reason": "STOP",
                }
            ),
        },
        {
            "kind": StepKind.STEP_KIND_MODEL_REQUEST,
            "conversation_id": "s-3",
            "messages": (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(text="Let me see."), CALL), "STOP"),),
        },
    ),
    "Anthropic's blocks": Case(
        "chat",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.output.messages": json.dumps(
                [
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "Hm."},
                            {"type": "text", "text": "Let me see."},
                            {"type": "tool_use", "id": "c-1", "name": "weather", "input": {"city": "Paris"}},
                        ],
                    }
                ]
            ),
        },
        {
            "messages": (
                MessageReading(
                    Role.ROLE_ASSISTANT, (MessagePart(reasoning="Hm."), MessagePart(text="Let me see."), CALL), ""
                ),
            )
        },
    ),
    "OpenAI's items of responses": Case(
        "chat",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.output.messages": json.dumps(
                [
                    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    {"type": "function_call", "call_id": "c-1", "name": "weather", "arguments": '{"city":"Paris"}'},
                ]
            ),
        },
        {"messages": (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(reasoning="Hm."), CALL), ""),)},
    ),
    "the same parts under two names": Case(
        "chat",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.output.messages": '[{"content": "hello", "parts": [{"type": "text", "text": "hello"}]}]',
        },
        {"messages": (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(text="hello"),), ""),)},
    ),
    "OpenInference's evaluations": Case(
        "judge",
        {
            "openinference.span.kind": "EVALUATOR",
            "evaluations.0.evaluation.name": "correct",
            "evaluations.0.evaluation.score": 0.5,
            "evaluations.1.evaluation.name": "tone",
            "evaluations.1.evaluation.label": "rude",
        },
        {
            "kind": StepKind.STEP_KIND_EVALUATOR,
            "scores": (Score(name="correct", number=0.5), Score(name="tone", label="rude")),
        },
    ),
    "OpenInference's documents": Case(
        "search",
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "weather",
            "retrieval.documents.0.document.content": "It rains.",
            "retrieval.documents.0.document.score": 0.5,
        },
        {
            "kind": StepKind.STEP_KIND_RETRIEVAL,
            "input_json": '"weather"',
            "output_json": '[{"content":"It rains.","score":0.5}]',
        },
    ),
    "a name of a prompt is no message": Case(
        "chat",
        {"gen_ai.operation.name": "chat", "gen_ai.prompt.name": "briefing", "gen_ai.prompt.version": "7"},
        {"input_json": ""},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_span_reads_as_its_vocabulary_says(case: Case) -> None:
    reading = reading_of(case.attributes, name=case.name)
    assert reading.is_agent
    assert {field: getattr(reading, field) for field in case.expected} == case.expected


def test_messages_of_span_events_are_those_of_the_span() -> None:
    span = span_of({"gen_ai.operation.name": "chat", "gen_ai.system": "strands-agents"}, name="chat")
    said = [
        ("gen_ai.user.message", {"content": '[{"text": "Weather in Paris?"}]'}),
        ("gen_ai.assistant.message", {"content": "earlier"}),
        (
            "gen_ai.choice",
            {
                "finish_reason": "tool_use",
                "message": '[{"toolUse": {"toolUseId": "c-1", "name": "weather", "input": {"city": "Paris"}}}]',
            },
        ),
    ]
    span.events.extend(Span.Event(name=name, attributes=key_values(attributes)) for name, attributes in said)
    reading = read_span(span, {}, "")
    assert reading.messages == (MessageReading(Role.ROLE_ASSISTANT, (CALL,), "tool_use"),)
    assert json.loads(reading.input_json) == [
        {"content": [{"text": "Weather in Paris?"}], "role": "user"},
        {"content": "earlier", "role": "assistant"},
    ]


def test_prompt_and_completion_events_are_those_of_the_span() -> None:
    events = {
        "gen_ai.content.prompt": {"gen_ai.prompt": '[{"role":"user","content":"hi"}]'},
        "gen_ai.content.completion": {"gen_ai.completion": '[{"role":"assistant","content":"hello"}]'},
    }
    reading = reading_of({"gen_ai.operation.name": "chat"}, events=events)
    assert reading.input_json == '[{"role":"user","content":"hi"}]'
    assert reading.messages[0].parts == (MessagePart(text="hello"),)


def test_listed_events_are_messages() -> None:
    events = [
        {"event.name": "gen_ai.user.message", "role": "user", "content": "hi"},
        {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "content": "hello"}},
    ]
    reading = reading_of({"gen_ai.request.model": "gpt-5", "events": json.dumps(events)})
    assert reading.messages == (MessageReading(Role.ROLE_ASSISTANT, (MessagePart(text="hello"),), ""),)
    assert "hi" in reading.input_json


def test_spans_of_a_scope_are_an_agents_without_attributes_that_say_so() -> None:
    span = span_of({}, name="running 2 tools")
    assert read_span(span, {}, "pydantic-ai").is_agent
    assert not read_span(span, {}, "app").is_agent


def test_calls_of_tools_without_ids_have_different_ones() -> None:
    parts = [{"type": "tool_call", "name": "a"}, {"type": "tool_call", "name": "b"}]
    reading = reading_of({"gen_ai.operation.name": "chat", "gen_ai.output.messages": json.dumps([{"parts": parts}])})
    first, second = (part.tool_call.tool_call_id for part in reading.messages[0].parts)
    assert first != second


def test_id_that_is_not_allowed_is_the_same_in_message_and_tool() -> None:
    call_id = "i" * 300
    message = json.dumps([{"parts": [{"type": "tool_call", "id": call_id, "name": "a"}]}])
    asked = reading_of({"gen_ai.operation.name": "chat", "gen_ai.output.messages": message})
    executed = reading_of({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": call_id})
    assert executed.tool is not None
    assert executed.tool.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    assert asked.messages[0].parts[0].tool_call.tool_call_id == executed.tool.call.tool_call_id
    assert executed.tool.call.original_id == call_id
