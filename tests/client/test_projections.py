"""Text and tool calls, out of events."""

from lavant.client import Event, ToolCallOutcome, _payloads
from lavant.client._events import wrap
from lavant.client._message import MessageDraft
from lavant.client._projections import TextProjection, ToolCallProjection
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Role


def spoken(*chunks: str, role: "Role.ValueType" = Role.ROLE_ASSISTANT, step: str = "", name: str = "m") -> list[Event]:
    draft = MessageDraft(name, role)
    protos = [draft.start(), *(draft.text(chunk) for chunk in chunks), draft.finish()]
    for proto in protos:
        proto.step_id = step
    return [wrap(proto) for proto in protos]


def test_text_is_what_assistants_say() -> None:
    text = TextProjection()
    events = [*spoken("what?", role=Role.ROLE_USER, name="u"), *spoken("It is ", "cold.")]
    assert [chunk for event in events if (chunk := text.add(event))] == ["It is ", "cold."]
    assert text.text == "It is cold."


def test_without_deltas_the_whole_is_the_text() -> None:
    text = TextProjection()
    start, _, finish = spoken("It is cold.")
    assert [text.add(event) for event in (start, finish)] == ["", "It is cold."]


def test_a_retried_step_drops_what_its_earlier_attempt_said() -> None:
    text = TextProjection()
    retry = _payloads.step_started("s", "", "model", event_pb2.STEP_KIND_MODEL_REQUEST, None, 2)
    events = [*spoken("wro", step="s", name="a")[:2], wrap(retry), *spoken("right", step="s", name="b")]
    for event in events:
        text.add(event)
    assert text.text == "right"


def test_a_message_has_parts_in_their_order() -> None:
    draft = MessageDraft("m")
    indexes = [draft.reasoning("a").reasoning_delta.part_index, draft.text("b").text_delta.part_index]
    call = draft.reserve()
    draft.fill(call, _payloads.tool_call("c", "search", {"q": 1}))
    indexes += [call, draft.text("d").text_delta.part_index]
    parts = draft.finish("stop").message_finished.parts
    assert indexes == [0, 1, 2, 3]
    assert [part.WhichOneof("content") for part in parts] == ["reasoning", "text", "tool_call", "text"]


def test_calls_are_paired_with_their_results() -> None:
    calls = ToolCallProjection()
    first = _payloads.tool_call("1", "search", {"q": "Oslo"})
    second = _payloads.tool_call("2", "read", '{"n": 1}')
    for call in (first, second):
        assert calls.add(wrap(_payloads.tool_call_started(call))) is None
    failed = _payloads.tool_call_finished(
        second, event_pb2.TOOL_CALL_OUTCOME_FAILED, None, _payloads.error_of(ValueError("no"))
    )
    done = calls.add(wrap(failed))
    assert done is not None
    assert (done.name, done.arguments, done.outcome) == ("read", {"n": 1}, ToolCallOutcome.FAILED)
    assert done.error is not None
    assert (done.error.message, done.error.type) == ("no", "ValueError")
    assert [(call.name, call.outcome) for call in calls.unfinished()] == [("search", None)]
