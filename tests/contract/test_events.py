"""What events may say: each rule broken once, with the path that the error names."""

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic_core import from_json

from lavant.contract import events as event_rules
from lavant.contract.events import LogContent
from lavant.contract.limits import MAX_OPEN
from lavant.contract.values import TooManyOpen, Violation
from lavant.v1.event_pb2 import (
    AlertChanged,
    CustomEvent,
    ErrorReported,
    Evaluator,
    Event,
    EventType,
    InputResolved,
    MessageFinished,
    MessagePart,
    ProgressReported,
    ReasoningDelta,
    RowFinished,
    RunStateChanged,
    Score,
    ScoreRecorded,
    SourceEvent,
    StateDelta,
    StateSnapshot,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCall,
    ToolCallFinished,
    ToolCallStarted,
    ToolOutputDelta,
)
from lavant.v1.run_pb2 import Error, RunFinished, RunState
from support.events import (
    artifact_updated,
    custom,
    identified,
    input_requested,
    message_finished,
    message_started,
    run_finished,
    run_started,
    step_finished,
    step_started,
    text_delta,
    tool_call_finished,
    tool_call_started,
)

LONG = "x" * 129
SUCCEEDED = RunState.RUN_STATE_SUCCEEDED


def with_id(event_id: str) -> Event:
    event = text_delta()
    event.event_id = event_id
    return event


def at(seconds: int, nanos: int = 0) -> Event:
    event = text_delta()
    event.event_time.seconds = seconds
    event.event_time.nanos = nanos
    return event


def within(step_id: str, event: Event) -> Event:
    event.step_id = step_id
    return event


def row(**fields: Any) -> Event:
    return identified(Event(row_finished=RowFinished(row_id="r", iteration=1, **fields)))


def timeless() -> Event:
    event = text_delta()
    event.ClearField("event_time")
    return event


def opened() -> LogContent:
    """A log with one of each thing open: step s, message m, tool call c, input i."""
    content = LogContent()
    event_rules.apply(
        content,
        [
            run_started(),
            step_started("s", attempt=2),
            message_started("m"),
            tool_call_started("c"),
            input_requested("i"),
        ],
    )
    return content


ARGUMENTS = ToolArgumentsDelta(message_id="m", tool_call_id="c")
BAD: list[tuple[Event, str]] = [
    (with_id(""), ".event_id"),
    (with_id(LONG), ".event_id"),
    (with_id("a\nb"), ".event_id"),
    (with_id("a\u200bb"), ".event_id"),
    (timeless(), ".event_time"),
    (at(253_402_300_800), ".event_time"),
    (at(-62_135_596_801), ".event_time"),
    (at(1, 1_000_000_000), ".event_time"),
    (at(1, -1), ".event_time"),
    (identified(Event()), ".payload"),
    (run_started(), ".run_started"),
    (run_finished(RunState.RUN_STATE_RUNNING), ".run_finished.state"),
    (identified(Event(run_finished=RunFinished(state=99))), ".run_finished.state"),  # type: ignore[arg-type]
    (identified(Event(run_finished=RunFinished(state=RunState.RUN_STATE_FAILED))), ".run_finished.error"),
    (identified(Event(run_finished=RunFinished(state=SUCCEEDED, output_json="{"))), ".run_finished.output_json"),
    *(
        (identified(Event(run_state_changed=RunStateChanged(state=state))), ".run_state_changed.state")
        for state in (RunState.RUN_STATE_UNSPECIFIED, RunState.RUN_STATE_QUEUED, SUCCEEDED)
    ),
    (within("unknown", text_delta()), ".step_id"),
    (within("unknown", step_started("new")), ".step_id"),
    (step_started(""), ".step_started.step_id"),
    (step_started(LONG), ".step_started.step_id"),
    (step_started("a\x07"), ".step_started.step_id"),
    (step_started("s", attempt=2), ".step_started.attempt"),
    (step_started("s", attempt=0), ".step_started.attempt"),
    (step_started("new", attempt=-1), ".step_started.attempt"),
    (step_started("new", parent="unknown"), ".step_started.parent_step_id"),
    (step_started("new", parent="new"), ".step_started.parent_step_id"),
    (step_started("s", attempt=3, parent="s"), ".step_started.parent_step_id"),
    (identified(Event(step_started=StepStarted(step_id="n", input_json="nope"))), ".step_started.input_json"),
    (step_finished("unknown"), ".step_finished.step_id"),
    (step_finished("s", RunState.RUN_STATE_RUNNING), ".step_finished.state"),
    (
        identified(Event(step_finished=StepFinished(step_id="s", state=SUCCEEDED, output_json="[NaN]"))),
        ".step_finished.output_json",
    ),
    (message_started("m"), ".message_started.message_id"),
    (message_started(""), ".message_started.message_id"),
    (text_delta(message_id="unknown"), ".text_delta.message_id"),
    (identified(Event(text_delta=TextDelta(message_id="m", part_index=-1))), ".text_delta.part_index"),
    (identified(Event(reasoning_delta=ReasoningDelta(message_id="x"))), ".reasoning_delta.message_id"),
    (identified(Event(reasoning_delta=ReasoningDelta(message_id="m", part_index=-1))), ".reasoning_delta.part_index"),
    (identified(Event(tool_arguments_delta=ToolArgumentsDelta())), ".tool_arguments_delta.message_id"),
    (
        identified(Event(tool_arguments_delta=ToolArgumentsDelta(message_id="m"))),
        ".tool_arguments_delta.tool_call_id",
    ),
    (
        identified(Event(tool_arguments_delta=ToolArgumentsDelta(message_id="m", tool_call_id="c", part_index=-1))),
        ".tool_arguments_delta.part_index",
    ),
    (message_finished("unknown"), ".message_finished.message_id"),
    (
        identified(
            Event(
                message_finished=MessageFinished(
                    message_id="m",
                    parts=[MessagePart(text="x"), MessagePart(tool_call=ToolCall(arguments_json="{"))],
                )
            )
        ),
        ".message_finished.parts[1].tool_call.arguments_json",
    ),
    (identified(Event(tool_call_started=ToolCallStarted())), ".tool_call_started.call"),
    (tool_call_started(""), ".tool_call_started.call.tool_call_id"),
    (tool_call_started("c"), ".tool_call_started.call.tool_call_id"),
    (
        identified(Event(tool_call_started=ToolCallStarted(call=ToolCall(tool_call_id="n", arguments_json="{")))),
        ".tool_call_started.call.arguments_json",
    ),
    (identified(Event(tool_output_delta=ToolOutputDelta(tool_call_id="x"))), ".tool_output_delta.tool_call_id"),
    (tool_call_finished("unknown"), ".tool_call_finished.tool_call_id"),
    (identified(Event(tool_call_finished=ToolCallFinished(tool_call_id="c"))), ".tool_call_finished.outcome"),
    (
        identified(Event(error_reported=ErrorReported(error=Error(details_json="'")))),
        ".error_reported.error.details_json",
    ),
    (identified(Event(state_snapshot=StateSnapshot(value_json="Infinity"))), ".state_snapshot.value_json"),
    (identified(Event(state_delta=StateDelta(patch_json="[}"))), ".state_delta.patch_json"),
    (artifact_updated(""), ".artifact_updated.artifact_id"),
    (input_requested("i"), ".input_requested.input_id"),
    (input_requested(""), ".input_requested.input_id"),
    (identified(Event(input_resolved=InputResolved(input_id="unknown"))), ".input_resolved.input_id"),
    (
        identified(Event(input_resolved=InputResolved(input_id="i", answer_json="yes"))),
        ".input_resolved.answer_json",
    ),
    (custom(""), ".custom.name"),
    (custom(value_json="{"), ".custom.value_json"),
    (identified(Event(row_finished=RowFinished(iteration=1))), ".row_finished.row_id"),
    (identified(Event(row_finished=RowFinished(row_id="r"))), ".row_finished.iteration"),
    (
        identified(
            Event(
                row_finished=RowFinished(
                    row_id="r", iteration=1, scores=[Score(), Score(evaluator=Evaluator(config_json="x"))]
                )
            )
        ),
        ".row_finished.scores[1].evaluator.config_json",
    ),
    (identified(Event(score_recorded=ScoreRecorded(subject_run_id="r"))), ".score_recorded"),
    (identified(Event(alert_changed=AlertChanged(rule_id="quality"))), ".alert_changed"),
    (row(rule_id="quality"), ".row_finished.rule_id"),
    (row(subject_name="weather"), ".row_finished.subject_name"),
    (row(subject_time=Timestamp()), ".row_finished.subject_time"),
    (row(labels={"team": "ads"}), ".row_finished.labels"),
    (
        identified(Event(custom=CustomEvent(name="n"), source=SourceEvent(content_json="{"))),
        ".source.content_json",
    ),
    (
        identified(Event(text_delta=TextDelta(message_id="m"), source=SourceEvent(content_json="{"))),
        ".source.content_json",
    ),
    (custom(value_json="[" * 100_000), ".custom.value_json"),
]

GOOD: list[Event] = [
    within("s", text_delta()),
    within("new", step_started("new", parent="s")),
    within("s", step_finished("s", RunState.RUN_STATE_FAILED)),
    within("s", step_started("s", attempt=3)),
    at(0),
    at(-62_135_596_800),
    at(253_402_300_799, 999_999_999),
    with_id("é" * 128),
    identified(Event(tool_arguments_delta=ARGUMENTS)),
    identified(Event(tool_output_delta=ToolOutputDelta(tool_call_id="c"))),
    identified(Event(input_resolved=InputResolved(input_id="i", answer_json="null"))),
    artifact_updated("a"),
    artifact_updated("a", append=True),
    artifact_updated("new"),
    message_finished(),
    tool_call_finished(),
    tool_call_started("other"),
    custom(value_json=""),
    custom(value_json='{"a":[1,2.5e3,"ä"]}'),
    run_finished(RunState.RUN_STATE_TIMED_OUT),
    identified(Event(row_finished=RowFinished(row_id="r", iteration=1))),
    identified(Event(progress_reported=ProgressReported())),
]


@pytest.mark.parametrize("neighbour", [custom(), text_delta()], ids=["after another event", "after a delta"])
@pytest.mark.parametrize(("event", "path"), BAD, ids=[f"{number}{path}" for number, (_, path) in enumerate(BAD)])
def test_a_broken_rule_is_named_by_its_path_and_leaves_no_trace(event: Event, path: str, neighbour: Event) -> None:
    content = opened()
    before = (content.state, content.encode())
    content.mark()
    with pytest.raises(Violation) as caught:
        event_rules.apply(content, [neighbour, event])
    assert caught.value.path == f"batch.events[1]{path}"
    content.undo()
    assert (content.state, content.encode()) == before


@pytest.mark.parametrize(
    "closing", [message_finished(), step_finished("s"), run_finished()], ids=["message", "step", "run"]
)
def test_a_delta_after_the_end_of_what_it_belongs_to_is_refused(closing: Event) -> None:
    content = opened()
    delta = within("s", text_delta())
    with pytest.raises(Violation) as caught:
        event_rules.apply(content, [delta, delta, closing, delta])
    assert caught.value.path.startswith("batch.events[3]")


def test_neighbouring_deltas_of_one_message_are_taken() -> None:
    content = opened()
    event_rules.apply(content, [message_started("other")])
    deltas = [text_delta(), text_delta(), within("s", text_delta()), within("s", text_delta()), text_delta()]
    deltas += [text_delta(message_id="other"), text_delta(message_id="other")]
    assert event_rules.apply(content, deltas) == [EventType.EVENT_TYPE_TEXT_DELTA] * len(deltas)


@pytest.mark.parametrize("event", GOOD, ids=lambda event: event.WhichOneof("payload"))
def test_what_keeps_the_rules_is_taken(event: Event) -> None:
    content = opened()
    (event_type,) = event_rules.apply(content, [event])
    assert event_type == Event.DESCRIPTOR.fields_by_name[str(event.WhichOneof("payload"))].number


@pytest.mark.parametrize("event", [text_delta(), run_finished(), custom()], ids=["delta", "finish", "custom"])
def test_a_run_begins_with_run_started(event: Event) -> None:
    with pytest.raises(Violation) as caught:
        event_rules.apply(LogContent(), [event])
    assert caught.value.path == f"batch.events[0].{event.WhichOneof('payload')}"


def test_nothing_follows_run_finished() -> None:
    content = opened()
    event_rules.apply(content, [run_finished()])
    with pytest.raises(Violation):
        event_rules.apply(content, [custom()])


def test_what_is_closed_can_be_opened_again() -> None:
    content = opened()
    closed = [message_finished(), message_started(), step_finished(), step_started(), tool_call_finished()]
    event_rules.apply(content, [*closed, tool_call_started()])


def test_undo_brings_back_what_was_open() -> None:
    content = opened()
    before = content.encode()
    content.mark()
    event_rules.apply(
        content,
        [
            step_started("s", attempt=3),
            step_started("new"),
            step_finished("s"),
            message_finished(),
            message_started(),
            tool_call_finished(),
            artifact_updated("new"),
            run_finished(),
        ],
    )
    content.undo()
    assert (content.encode(), content.state) == (before, RunState.RUN_STATE_RUNNING)


def test_what_is_open_survives_encoding() -> None:
    content = opened()
    again = LogContent.decode(from_json(content.encode()), content.state)
    assert again.encode() == content.encode()
    assert again.steps == {"s": 2}


def test_what_is_open_is_bounded() -> None:
    content = LogContent(RunState.RUN_STATE_RUNNING)
    event_rules.apply(content, [message_started(str(number)) for number in range(MAX_OPEN)][:1_000])
    event_rules.apply(content, [message_started(str(number)) for number in range(1_000, MAX_OPEN)])
    event_rules.apply(content, [message_finished("0")])
    event_rules.apply(content, [message_started("0")])
    with pytest.raises(TooManyOpen):
        event_rules.apply(content, [message_started("new")])


def test_the_ids_of_what_is_open_are_bounded_in_bytes() -> None:
    content = LogContent(RunState.RUN_STATE_RUNNING)
    ids = [f"{number:04}{'é' * 62}" for number in range(1_024)]  # of 128 bytes each
    event_rules.apply(content, [message_started(one) for one in ids[:400]])
    event_rules.apply(content, [step_started(one) for one in ids[400:]])
    content.mark()
    with pytest.raises(TooManyOpen) as caught:
        event_rules.apply(content, [message_finished(ids[0]), tool_call_started("c"), tool_call_started("x" * 128)])
    assert (caught.value.kind, caught.value.limit, caught.value.path) == ("id_bytes", 131_072, "batch.events[2]")
    content.undo()
    with pytest.raises(TooManyOpen):
        event_rules.apply(content, [tool_call_started("c")])
    again = LogContent.decode(from_json(content.encode()), content.state)
    with pytest.raises(TooManyOpen):
        event_rules.apply(again, [tool_call_started("c")])
    event_rules.apply(again, [step_finished(ids[400]), tool_call_started("x" * 128)])


@pytest.mark.parametrize(
    "event",
    [
        identified(Event(score_recorded=ScoreRecorded(subject_run_id="r"))),
        identified(Event(alert_changed=AlertChanged(rule_id="quality"))),
        row(rule_id="quality", subject_name="weather", subject_time=Timestamp(seconds=1), labels={"team": "ads"}),
    ],
    ids=lambda event: event.WhichOneof("payload"),
)
def test_what_producers_must_not_write_is_taken_in_system_runs(event: Event) -> None:
    assert event_rules.apply(opened(), [event], system_type=100)


def test_every_payload_of_the_contract_has_a_rule() -> None:
    payloads = {field.name for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert payloads == event_rules._CHECKS.keys()
