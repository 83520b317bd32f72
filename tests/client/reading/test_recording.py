"""All of a run in one value."""

import copy
import pickle
from collections.abc import Iterable

import pytest

from lavant.client import Client, Event, ToolCallOutcome, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client._reading.recording import Recording, RecordingProjection
from lavant.client.events import wrap
from lavant.client.models import RunResult
from lavant.client.states import RunState
from support.client_events import began, called, ended, said
from support.server import ServerProcess


def recorded(events: Iterable[Event], usage: Usage | None = None) -> Recording:
    projection = RecordingProjection()
    for event in events:
        projection.add(event)
    return projection.recording(RunResult(run_id="r", state=RunState.SUCCEEDED, usage=usage))


def test_a_recording_adds_up() -> None:
    progress = [wrap(_payloads.progress("rows", current, 4, 0, None)) for current in (0, 1)]
    mistake = wrap(_payloads.error_reported(_payloads.error_text("oops")))
    inner = [began("b", "a"), *said("b", "hi"), *called("b", "1"), ended("b", "a")]
    events = [began("a"), *inner, *progress, mistake, ended("a")]
    recording = recorded(events)
    assert (recording.run_id, recording.text, recording.total_steps) == ("r", "hi", 2)
    assert recording.events == tuple(events)
    assert recording.progress is not None
    assert recording.progress.fraction == 0.25
    assert [error.message for error in recording.errors] == ["oops"]
    assert [step.id for step in recording.steps] == ["a"]


def test_a_recording_has_what_was_said_and_called_outside_of_steps() -> None:
    start, _ = called("", "2")
    recording = recorded([*said("", "It is "), *called("", "1"), start, *said("", "cold.")])
    assert (recording.text, recording.steps) == ("It is cold.", ())
    assert [(call.id, call.outcome) for call in recording.tool_calls] == [
        ("1", ToolCallOutcome.SUCCEEDED),
        ("2", None),
    ]


def test_usage_is_the_runs_or_that_of_its_steps() -> None:
    inner = [began("b", "a"), ended("b", "a", Usage(input_tokens=2))]
    events = [began("a"), *inner, ended("a", "", Usage(input_tokens=1))]
    assert recorded(events).usage == Usage(input_tokens=3)
    assert recorded(events, Usage(input_tokens=7, output_tokens=2)).usage.total_tokens == 9
    assert recorded([]).usage == Usage()


def test_a_recording_is_json_without_its_events() -> None:
    recording = recorded([began("a"), *said("a", "cold"), *called("a", "1"), ended("a")])
    again = Recording.model_validate({**recording.model_dump(), "events": ()})
    assert again.steps == recording.steps
    assert '"events"' not in recording.model_dump_json()
    assert "Event " not in repr(recording)


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


@pytest.mark.parametrize("depth", [500, 5_000])
def test_a_recording_of_steps_deeper_than_the_stack_is_a_value(depth: int) -> None:
    inner = [*said(str(depth - 1), "deep"), *called(str(depth - 1), "1")]
    starts = [began(str(number), str(number - 1) if number else "") for number in range(depth)]
    ends = [ended(str(number), str(number - 1) if number else "") for number in reversed(range(depth))]
    recording, same = (recorded([*starts, *inner, *ends]) for _ in range(2))
    other = recorded([*starts, *said(str(depth - 1), "other"), *ends])
    assert recording.total_steps == depth
    assert (recording == same, recording == other) == (True, False)
    assert hash(recording) == hash(same)
    for again in (pickle.loads(pickle.dumps(recording)), copy.deepcopy(recording), copy.copy(recording)):
        assert again == recording
        assert [step.id for step in again.steps[0].walk()] == [str(number) for number in range(depth)]
    assert copy.deepcopy(recording.steps[0]) == recording.steps[0] != other.steps[0]
    assert repr(recording).startswith("Recording(run_id='r', state='succeeded', ")
    assert len(repr(recording.steps[0])) < 500
    assert "children=<1 steps>" in repr(recording.steps[0])


def test_trees_of_other_shapes_are_not_equal() -> None:
    flat = recorded([began("a"), ended("a"), began("b"), ended("b")]).steps
    nested = recorded([began("a"), began("b", "a"), ended("b", "a"), ended("a")]).steps
    assert flat[0] != nested[0]
    assert flat[0] != "a"
    assert pickle.loads(pickle.dumps(nested)) == nested


def test_values_with_decoded_json_can_be_hashed() -> None:
    recording = recorded([began("a"), *called("a", "1"), ended("a")])
    assert len({recording, *recording.tool_calls, *recording.steps, recording.result}) == 4
    assert hash(recording.tool_calls[0]) == hash(copy.deepcopy(recording.tool_calls[0]))


def test_a_recording_is_printed_on_a_line() -> None:
    recording = recorded([*said("", "It is cold. " * 1_000), *called("", "1")])
    assert len(f"{recording}") < 200
    assert len(str([recording])) < 200


def test_usage_of_a_run_without_steps_is_what_was_reported_last() -> None:
    reports = [wrap(_payloads.progress("", None, None, 1, Usage(input_tokens=count))) for count in (3, 5)]
    assert recorded(reports).usage == Usage(input_tokens=5)
