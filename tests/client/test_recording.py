"""All of a run in one value."""

from collections.abc import Iterable

from lavant.client import Client, Event, ToolCallOutcome, Usage, _payloads
from lavant.client._events import wrap
from lavant.client._models import RunResult
from lavant.client._recording import Recording, RecordingProjection
from lavant.client._states import RunState
from support.client_events import began, called, ended, said
from support.server import ServerProcess


def recorded(events: Iterable[Event], usage: Usage | None = None) -> Recording:
    projection = RecordingProjection()
    for event in events:
        projection.add(event)
    return projection.recording(RunResult(run_id="r", state=RunState.SUCCEEDED, usage=usage))


def test_a_recording_adds_up() -> None:
    progress = [wrap(_payloads.progress("rows", current, 4, 0, None)) for current in (0, 1)]
    mistake = wrap(_payloads.error_reported(_payloads.error_said("oops")))
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
