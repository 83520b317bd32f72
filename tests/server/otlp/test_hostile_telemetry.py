"""Readings of spans and records that nobody should send: the contract's rules hold for all that they return."""

import json
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lavant.contract.events import LogContent, apply
from lavant.contract.limits import MAX_BATCH_BYTES, MAX_NAME_LENGTH
from lavant.contract.text import is_name
from lavant.server.otlp.readings import LogReading, SpanReading, pending_of, read_log, read_span
from lavant.server.otlp.vocabularies import EVENTS, GIVEN, SPAN_NAMES, VOCABULARIES, WRITTEN
from lavant.v1.event_pb2 import (
    Event,
    MessageFinished,
    MessageStarted,
    RowFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallOutcome,
    ToolCallStarted,
)
from lavant.v1.run_pb2 import RunState
from server.otlp.recorded import recorded_spans
from server.otlp.spans import any_value, reading_of, span_of

NAMES = sorted(
    {
        name
        for vocabulary in VOCABULARIES
        for table in (*vocabulary.attributes.values(), vocabulary.kinds, vocabulary.implied)
        for name in table
    }
)
LISTS = sorted(prefix for vocabulary in VOCABULARIES for prefix in vocabulary.lists)
WORDS = sorted({word for vocabulary in VOCABULARIES for kinds in vocabulary.kinds.values() for word in kinds})
EVENT_NAMES = sorted({*EVENTS, *GIVEN, *WRITTEN, "exception", "event"})
TEXTS = (
    "",
    "\x00\x1f\x7f\u2028",
    "😀" * 300,
    "NaN",
    "1e999",
    "-",
    "[" * 3_000,
    '{"a":' * 150 + "1" + "}" * 150,
    '[{"role": 7, "parts": [{"type": "text", "content": {"x": [1, null]}}, 3, null, {"type": []}]}]',
    '[{"role":"assistant","content":"half a character: \\ud83d","tool_calls":[{"id":"\\u0000","function":7}]}]',
    '[{"score": NaN, "parts": [{"type": "tool_call", "name": null, "arguments": Infinity}]}]',
    '{"message": {"message": {"message": "deep"}}}',
    "9" * 5_000,
    "[" + "9" * 1_000 + "]",
    "true",
    "null",
    '"text"',
    "[[[[]]]]",
    "{not json",
)
CALLS = json.dumps([{"parts": [{"type": "tool_call", "id": "i" * 500, "name": "n" * 500, "arguments": "{"}] * 3_000}])


def hostile_value(random: Random, depth: int = 0) -> Any:
    """Return a value of any type that an attribute may have."""
    choice = random.randrange(12)
    if choice < 5:
        return random.choice(TEXTS)
    if choice < 8:
        return random.choice(WORDS)
    if choice == 8:
        return random.choice([0, -1, 1 << 62, True, False, float("nan"), float("inf"), -0.5, 1e300, b"\xff\x00"])
    if depth > 20:
        return "bottom"
    if choice == 9:
        return [hostile_value(random, depth + 1) for _ in range(random.randrange(4))]
    if choice == 10:
        return {random.choice(["role", "parts", "content", "type", "name", "\x00"]): hostile_value(random, depth + 1)}
    return None if depth else ""


def hostile_attributes(random: Random) -> list[KeyValue]:
    """Return attributes with meanings, in lists and elsewhere, some of them twice."""
    names = random.choices(NAMES, k=random.randrange(30))
    for _ in range(random.randrange(6)):
        middle = random.choice(["", "0", "999999999999", "1.message.role", "0.message.tool_calls.0", "٣.x", "0..."])
        names.append(random.choice(LISTS) + middle)
    return [KeyValue(key=name, value=any_value(hostile_value(random))) for name in names]


def hostile_span(random: Random) -> Span:
    """Return a span with hostile attributes, events, ids and times."""
    return Span(
        name=random.choice([*TEXTS[:4], *SPAN_NAMES, "n" * 1_000]),
        span_id=random.choice([b"", b"\x00", b"12345678", b"x" * 100]),
        parent_span_id=random.choice([b"", b"12345678", b"x"]),
        end_time_unix_nano=random.choice([0, 1, 4_102_444_800_000_000_000, (1 << 64) - 1]),
        attributes=hostile_attributes(random),
        events=[
            Span.Event(name=random.choice(EVENT_NAMES), attributes=hostile_attributes(random))
            for _ in range(random.randrange(4))
        ],
        status=Status(code=random.randrange(3), message=random.choice(TEXTS)),  # type: ignore[arg-type]
    )


def hostile_record(random: Random) -> LogRecord:
    """Return a log record with a hostile body and hostile attributes."""
    return LogRecord(
        event_name=random.choice(EVENT_NAMES),
        body=any_value(hostile_value(random)),
        time_unix_nano=random.choice([0, 1, (1 << 64) - 1]),
        attributes=hostile_attributes(random),
    )


def check(reading: SpanReading | LogReading) -> None:
    """Check that all of a reading may be recorded in events of less than a batch."""
    for name in (reading.name, reading.agent_name, reading.model, reading.version, reading.conversation_id):
        assert is_name(name, at_most=MAX_NAME_LENGTH)
    assert bool(reading.error) == (reading.state in (RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED)) or (
        isinstance(reading, LogReading) and reading.state == RunState.RUN_STATE_UNSPECIFIED
    )
    events = list(events_of(reading))
    for number, event in enumerate(events):
        event.event_id = f"event-{number}"
        event.event_time.CopyFrom(Timestamp(seconds=1))
        assert event.ByteSize() < MAX_BATCH_BYTES
    apply(LogContent(), events)


def events_of(reading: SpanReading | LogReading) -> Iterable[Event]:
    """Yield the events of a run that has nothing else."""
    yield Event(run_started=RunStarted(input_json=reading.input_json, version=reading.version, model=reading.model))
    yield Event(step_started=StepStarted(step_id="step", name=reading.name, input_json=reading.input_json))
    for message in reading.messages:
        yield Event(message_started=MessageStarted(message_id="m", role=message.role, model=reading.model))
        yield Event(
            message_finished=MessageFinished(
                message_id="m", role=message.role, parts=message.parts, finish_reason=message.finish_reason
            )
        )
    if reading.tool is not None:
        yield Event(tool_call_started=ToolCallStarted(call=reading.tool.call))
        yield Event(
            tool_call_finished=ToolCallFinished(
                tool_call_id=reading.tool.call.tool_call_id,
                outcome=reading.tool.outcome or ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED,
                result_json=reading.tool.result_json,
                error=reading.error,
            )
        )
    output = reading.output_json if isinstance(reading, SpanReading) else ""
    yield Event(row_finished=RowFinished(row_id="row", iteration=1, scores=reading.scores))
    yield Event(
        step_finished=StepFinished(
            step_id="step",
            state=RunState.RUN_STATE_FAILED,
            output_json=output,
            error=reading.error,
            usage=reading.usage,
        )
    )


@pytest.mark.parametrize("seed", range(20))
def test_hostile_spans_read_within_the_contract(seed: int) -> None:
    random = Random(seed)
    for _ in range(60):
        span = hostile_span(random)
        reading = read_span(span, {"service.version": hostile_value(random)}, random.choice(["", "pydantic-ai"]))
        pending_of(span)
        check(reading)


@pytest.mark.parametrize("seed", range(20))
def test_hostile_records_read_within_the_contract(seed: int) -> None:
    random = Random(seed)
    for _ in range(60):
        reading = read_log(hostile_record(random), {}, random.choice(["", "com.anthropic.claude_code.events"]))
        if reading is not None:
            check(reading)


@pytest.mark.parametrize(
    "fixture", ["openinference", "openllmetry-0.40", "pydantic-ai", "vercel-ai-legacy", "logfire-3"]
)
def test_damaged_spans_of_libraries_read_within_the_contract(fixture: str) -> None:
    random = Random(fixture)
    for recorded in recorded_spans(fixture):
        for _ in range(40):
            span = Span()
            span.CopyFrom(recorded.span)
            for entry in span.attributes:
                text = entry.value.string_value
                if text and random.random() < 0.3:
                    start = random.randrange(len(text))
                    entry.value.string_value = text[:start] + random.choice(["", '"', "{", "\\"]) + text[start + 1 :]
                elif random.random() < 0.1:
                    entry.value.CopyFrom(any_value(hostile_value(random)))
            check(read_span(span, recorded.resource, recorded.scope))


LARGE_TEXT = "x" * (2 << 20)
CALL = {"type": "tool_call", "id": "é" * 1_100, "name": "é" * 300, "arguments": "{"}
OUTPUT = "gen_ai.output.messages"
LARGE: dict[str, Callable[[], dict[str, Any]]] = {
    "a text of 2 MiB": lambda: {OUTPUT: "é" * (1 << 20)},
    "an input of 2 MiB": lambda: {"gen_ai.input.messages": json.dumps([{"content": "x" * 900}] * 2_200)},
    "a message of 2 MiB": lambda: {OUTPUT: json.dumps([{"content": "é" * (1 << 20)}], ensure_ascii=False)},
    "arguments of 2 MiB": lambda: {"gen_ai.tool.call.arguments": json.dumps([LARGE_TEXT])},
    "many texts": lambda: {OUTPUT: json.dumps([{"parts": [{"type": "text", "content": "x" * 4_000}] * 500}])},
    "a thousand calls": lambda: {OUTPUT: json.dumps([{"parts": [CALL] * 1_100}])},
    "an explanation of 2 MiB": lambda: {"gen_ai.evaluation.name": "n", "gen_ai.evaluation.explanation": LARGE_TEXT},
    "10,000 attributes": lambda: {f"llm.output_messages.{index}.message.content": "x" for index in range(10_000)},
    "a path of many names": lambda: {"llm.output_messages.0" + ".x" * 10_000: "x"},
}


def test_input_of_any_size_keeps_its_end() -> None:
    reading = reading_of({"gen_ai.operation.name": "chat", **LARGE["an input of 2 MiB"]()})
    assert json.loads(reading.input_json)[0]["omitted"] > 2_000


@pytest.mark.parametrize("name", LARGE)
def test_large_spans_read_within_the_contract(name: str) -> None:
    check(reading_of({"gen_ai.operation.name": "chat", **LARGE[name]()}))
    check(reading_of({"gen_ai.operation.name": "execute_tool", **LARGE[name]()}))
    check(reading_of({"gen_ai.operation.name": "invoke_agent", **LARGE[name]()}))


def test_half_characters_in_json_are_replaced() -> None:
    written = '[{"role":"assistant","parts":[{"type":"text","content":"cut \\ud83d"}]}]'
    reading = reading_of({"gen_ai.operation.name": "chat", "gen_ai.output.messages": written})
    assert reading.messages[0].parts[0].text == "cut \ufffd"
    assert json.loads(reading.output_json)[0]["parts"][0]["content"] == "cut \ufffd"


def test_nan_in_json_is_null() -> None:
    reading = reading_of({"gen_ai.tool.name": "score", "gen_ai.tool.call.result": '{"value": NaN}'})
    assert json.loads(reading.output_json) == {"value": None}


def test_long_conversation_keeps_its_end() -> None:
    messages = [{"role": "user", "content": f"{number} {'x' * 2_000}"} for number in range(100)]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(messages),
        "gen_ai.system_instructions": "Be brief.",
    }
    instructions, omitted, *kept = json.loads(reading_of(attributes).input_json)
    assert instructions == {"role": "system", "content": "Be brief."}
    assert omitted == {"omitted": 100 - len(kept)}
    assert kept == messages[-len(kept) :]
    assert 20 < len(kept) < 40


def test_spans_with_attributes_of_others_only_are_no_agents() -> None:
    attributes = {f"key.{index}": "x" for index in range(10_000)}
    assert not read_span(span_of(attributes), {}, "").is_agent
