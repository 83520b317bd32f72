"""Text and tool calls, out of events."""

from datetime import timedelta

from lavant.client import Event, ToolCallOutcome
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.payloads import MessageDraft
from lavant.client._reading.projections import TextProjection, ToolCallProjection
from lavant.client.events import wrap
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


def began(step: str, parent: str = "", attempt: int = 1) -> Event:
    return wrap(_payloads.step_started(step, parent, "n", event_pb2.STEP_KIND_WORKFLOW, None, attempt))


def test_a_retry_drops_what_was_said_in_steps_below() -> None:
    text = TextProjection()
    first = [began("a"), began("b", "a"), began("c", "b"), *spoken("wrong", step="c", name="1")]
    beside = [began("x"), *spoken("beside ", step="x", name="2")]
    second = [began("a", attempt=2), began("b", "a"), *spoken("right", step="b", name="3")]
    for event in [*first, *beside, *second]:
        text.add(event)
    assert text.text == "beside right"


def test_a_message_of_a_dropped_attempt_stays_dropped() -> None:
    text = TextProjection()
    start, delta, finish = spoken("wrong", step="a", name="1")
    shown = [text.add(event) for event in (began("a"), start, delta, began("a", attempt=2), delta, finish)]
    assert shown == ["", "", "wrong", "", "", ""]
    assert text.text == ""


def test_a_message_that_is_said_again_under_its_id_counts() -> None:
    text = TextProjection()
    again = [began("a", attempt=2), *spoken("right", step="a", name="1")]
    for event in [began("a"), *spoken("wrong", step="a", name="1")[:2], *again]:
        text.add(event)
    assert text.text == "right"


def test_a_message_whose_start_was_not_read_is_dropped_with_its_step() -> None:
    text = TextProjection()
    _, delta, _ = spoken("wrong", step="a", name="1")
    assert text.add(delta) == "wrong"
    text.add(began("a", attempt=2))
    assert text.text == ""


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
    failed.tool_call_finished.duration.FromMilliseconds(1500)
    done = calls.add(wrap(failed))
    assert done is not None
    assert (done.name, done.arguments, done.outcome) == ("read", {"n": 1}, ToolCallOutcome.FAILED)
    assert done.duration == timedelta(seconds=1.5)
    assert done.error is not None
    assert (done.error.message, done.error.type) == ("no", "ValueError")
    assert [(call.name, call.outcome) for call in calls.unfinished()] == [("search", None)]


def test_a_call_whose_start_was_not_read_has_its_end() -> None:
    finished = _payloads.tool_call_finished(
        _payloads.tool_call("1", "search", {"q": "Oslo"}), event_pb2.TOOL_CALL_OUTCOME_SUCCEEDED, "cold"
    )
    finished.step_id = "s"
    done = ToolCallProjection().add(wrap(finished))
    assert done is not None
    assert (done.name, done.arguments, done.result, done.step_id) == ("search", None, "cold", "s")
