"""Steps as a tree, and all of a run in one value."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from lavant.client import Client, Event, Step, Usage, _payloads
from lavant.client._events import wrap
from lavant.client._message import MessageDraft
from lavant.client._models import RunResult, to_timedelta
from lavant.client._recording import RecordingProjection
from lavant.client._states import RunState, StepKind
from lavant.client._steps import StepProjection
from lavant.v1 import event_pb2
from support.server import ServerProcess

Shape = dict[str, str]  # each step, in the order in which they begin, and the one it is within
TOOL = event_pb2.STEP_KIND_TOOL


def began(step_id: str, parent_id: str = "", attempt: int = 1) -> Event:
    return wrap(_payloads.step_started(step_id, parent_id, step_id.upper(), TOOL, {"q": 1}, attempt))


def ended(step_id: str, parent_id: str = "", error: BaseException | None = None) -> Event:
    return wrap(_payloads.step_finished(step_id, parent_id, "out", error, Usage(input_tokens=1), 0.5))


def said(step_id: str, text: str) -> list[Event]:
    draft = MessageDraft(f"{step_id}-{text}")
    protos = [draft.start(), draft.text(text), draft.finish()]
    for proto in protos:
        proto.step_id = step_id
    return [wrap(proto) for proto in protos]


def called(step_id: str, call_id: str) -> list[Event]:
    call = _payloads.tool_call(call_id, "look", {})
    outcome = event_pb2.TOOL_CALL_OUTCOME_SUCCEEDED
    protos = [_payloads.tool_call_started(call), _payloads.tool_call_finished(call, outcome, 1)]
    for proto in protos:
        proto.step_id = step_id
    return [wrap(proto) for proto in protos]


def fed(projection: StepProjection, events: Iterable[Event]) -> list[str]:
    return [step.id for event in events if (step := projection.add(event))]


def names(steps: Iterable[Step]) -> object:
    return {step.id: names(step.children) for step in steps}


def test_a_step_has_what_was_done_in_it() -> None:
    steps = StepProjection()
    inner = [began("b", "a"), *said("b", "inner"), ended("b", "a", ValueError("no"))]
    fed(steps, [began("a"), *said("a", "outer"), *called("a", "c"), *inner, ended("a")])
    (step,) = steps.roots()
    (child,) = step.children
    assert (step.name, step.kind, step.input, step.output) == ("A", StepKind.TOOL, {"q": 1}, "out")
    assert (step.text, [call.id for call in step.tool_calls], step.state) == ("outer", ["c"], RunState.SUCCEEDED)
    assert (child.text, child.state, child.parent_id) == ("inner", RunState.FAILED, "a")
    assert child.error is not None
    assert child.error.message == "no"
    assert [each.id for each in step.walk()] == ["a", "b"]


def test_a_retry_replaces_the_attempt_before_it() -> None:
    steps = StepProjection()
    first = [began("a"), *said("a", "wrong"), began("b", "a"), began("c", "b"), ended("c", "b")]
    fed(steps, [*first, began("a", attempt=2), *said("a", "right"), ended("a"), began("a", attempt=3)])
    (step,) = steps.roots()
    assert (step.attempt, step.text, step.children, step.state) == (3, "", (), None)


def test_steps_that_never_ended_come_as_trees_without_a_state() -> None:
    steps = StepProjection()
    fed(steps, [began("a"), began("b", "a"), began("c", "a"), ended("c", "a"), began("d")])
    assert names(steps.unfinished()) == {"a": {"b": {}, "c": {}}, "d": {}}
    assert [step.state for step in steps.unfinished()] == [None, None]


def test_a_step_whose_beginning_was_not_seen_has_its_end() -> None:
    steps = StepProjection()
    assert fed(steps, [*said("a", "x"), ended("b", "a"), ended("a")]) == ["b", "a"]
    assert [(step.id, step.parent_id, step.output) for step in steps.roots()] == [("b", "a", "out"), ("a", "", "out")]


@st.composite
def logs(draw: st.DrawFn) -> tuple[Shape, list[Event]]:
    """Steps that nest and run beside each other, all ended."""
    shape: Shape = {}
    open_steps: list[str] = []
    events: list[Event] = []
    for number in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(["", *open_steps]))
        events.append(began(f"s{number}", parent))
        shape[f"s{number}"] = parent
        open_steps.append(f"s{number}")
        if draw(st.booleans()):
            events += _end_some(shape, open_steps, draw(st.sampled_from(open_steps)))
    while open_steps:
        events += _end_some(shape, open_steps, open_steps[0])
    return shape, events


def _end_some(shape: Shape, open_steps: list[str], step_id: str) -> list[Event]:
    events = []
    for child in [each for each in open_steps if shape[each] == step_id]:
        events += _end_some(shape, open_steps, child)
    open_steps.remove(step_id)
    return [*events, ended(step_id, shape[step_id])]


@given(logs())
def test_the_tree_is_the_one_that_was_built(log: tuple[Shape, list[Event]]) -> None:
    shape, events = log
    steps = StepProjection()
    assert sorted(fed(steps, events)) == sorted(shape)
    assert {each.id: each.parent_id for root in steps.roots() for each in root.walk()} == shape
    assert all(child.parent_id == each.id for root in steps.roots() for each in root.walk() for child in each.children)


@given(logs(), st.integers(0, 30))
def test_a_stream_may_begin_anywhere(log: tuple[Shape, list[Event]], skipped: int) -> None:
    _, events = log
    steps = StepProjection()
    rest = events[skipped:]
    assert len(fed(steps, rest)) == sum(event.type == "step_finished" for event in rest)
    assert all(step.state is RunState.SUCCEEDED for step in steps.roots())


def test_a_recording_adds_up() -> None:
    recorded = RecordingProjection()
    progress = wrap(_payloads.progress("rows", 1, 4, 0, None))
    mistake = wrap(_payloads.error_reported(_payloads.error_said("oops")))
    inner = [began("b", "a"), *said("b", "hi"), *called("b", "c"), ended("b", "a")]
    events = [began("a"), *inner, progress, mistake, ended("a")]
    for event in events:
        recorded.add(event)
    recording = recorded.recording(RunResult(run_id="r", state=RunState.SUCCEEDED, usage=Usage(output_tokens=2)))
    assert (recording.text, recording.total_steps, recording.events) == ("hi", 2, tuple(events))
    assert recording.progress is not None
    assert recording.progress.fraction == 0.25
    assert [error.message for error in recording.errors] == ["oops"]
    assert recording.usage is not None
    assert recording.usage.total_tokens == 2
    assert [call.duration for call in recording.tool_calls] == [to_timedelta(event_pb2.ToolCallFinished().duration)]


def test_a_run_is_collected(server_process: ServerProcess) -> None:
    with Client(server_process.target) as client:
        with client.runs.start("agent") as run, run.step("plan"), run.tool("look"):
            run.progress("rows", 1, 2)
        steps = [step.name for step in client.runs.stream(run.id).steps]
        fractions = [progress.fraction for progress in client.runs.stream(run.id).progress]
        recording = client.runs.stream(run.id).collect()
    assert (steps, fractions) == (["plan"], [0.5])
    assert [call.name for call in recording.tool_calls] == ["look"]
    assert recording.events[-1].type == "run_finished"
