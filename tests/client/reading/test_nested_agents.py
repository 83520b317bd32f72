"""Text and progress of nested agents are distinct from the run's own."""

import copy
import pickle
from collections.abc import Iterable

from lavant.client import Event, TextChunk
from lavant.client._publishing import payloads as _payloads
from lavant.client._reading.projections import ProgressProjection, TextProjection
from lavant.client.events import wrap
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import STEP_KIND_AGENT, STEP_KIND_MODEL_REQUEST, STEP_KIND_TOOL, STEP_KIND_WORKFLOW, StepKind
from support.client_events import called, said


def step(step_id: str, parent: str = "", kind: "StepKind.ValueType" = STEP_KIND_AGENT, attempt: int = 1) -> Event:
    return wrap(_payloads.step_started(step_id, parent, step_id.upper(), kind, None, attempt))


def chunks_of(events: Iterable[Event], *, nested: bool = False) -> list[TextChunk]:
    """The chunks; their text must be that of the whole, and the same without deltas."""
    chosen = [*events]
    text = TextProjection(nested=nested)
    chunks = [chunk for event in chosen if (chunk := text.add_chunk(event))]
    assert "".join(chunks) == text.text
    without = TextProjection(nested=nested)
    for event in chosen:
        if event.type != "text_delta":
            without.add(event)
    assert without.text == text.text
    return chunks


def test_an_agent_in_a_tool_is_nested() -> None:
    inner = [step("tool", "", STEP_KIND_TOOL), step("inner", "tool"), *said("inner", "within ")]
    events = [*said("", "I ask. "), *inner, *said("", "cold")]
    assert "".join(chunks_of(events)) == "I ask. cold"
    chunks = chunks_of(events, nested=True)
    assert "".join(chunks) == "I ask. within cold"
    assert {(chunk.step_id, chunk.step_name, chunk.is_nested) for chunk in chunks} == {
        ("", "", False),
        ("inner", "INNER", True),
    }
    assert len({chunk.message_id for chunk in chunks}) == 3


def test_an_agents_step_in_a_run_that_speaks_itself_is_nested() -> None:
    events = [*said("", "I ask. "), step("inner"), *said("inner", "within "), *said("", "cold")]
    assert "".join(chunks_of(events)) == "I ask. cold"


def test_agent_step_in_a_run_with_a_tool_or_model_call_is_nested() -> None:
    inner = [step("inner"), *said("inner", "within ")]
    assert "".join(chunks_of([*called("", "1")[:1], *inner, *said("", "cold")])) == "cold"
    request = step("request", "", STEP_KIND_MODEL_REQUEST)
    assert "".join(chunks_of([request, *inner, *said("request", "cold")])) == "cold"


def test_agents_that_hand_over_to_each_other_are_the_runs_own() -> None:
    first = [step("a"), step("m", "a", STEP_KIND_MODEL_REQUEST), *said("m", "Ask b. ")]
    second = [step("b"), step("n", "b", STEP_KIND_MODEL_REQUEST), *said("n", "I am b. ")]
    consulted = [step("t", "b", STEP_KIND_TOOL), step("c", "t"), *said("c", "within ")]
    within = [step("d", "b"), *said("d", "also within ")]
    assert "".join(chunks_of([*first, *second, *consulted, *within, *said("n", "Done.")])) == "Ask b. I am b. Done."


def test_steps_of_a_workflow_are_no_agents() -> None:
    events = [step("w", "", STEP_KIND_WORKFLOW), step("v", "w", STEP_KIND_WORKFLOW), *said("v", "cold")]
    assert "".join(chunks_of(events)) == "cold"


def test_a_step_whose_start_was_not_read_is_the_runs_own() -> None:
    assert "".join(chunks_of(said("unknown", "cold"))) == "cold"


def test_a_message_that_is_longer_than_its_deltas_is_shown_whole() -> None:
    start, delta, _, finish = said("", "It is cold.")
    text = TextProjection()
    assert [text.add(event) for event in (start, delta, finish)] == ["", "I", "t is cold."]
    resumed = TextProjection()
    assert [resumed.add(event) for event in (delta, finish)] == ["I", ""]
    assert text.text == resumed.text == "It is cold."


def test_a_chunk_is_a_str_that_can_be_copied() -> None:
    chunk = TextChunk("cold", step_id="s", step_name="S", message_id="m", is_nested=True)
    assert chunk == "cold"
    for again in (pickle.loads(pickle.dumps(chunk)), copy.deepcopy(chunk)):
        assert (again, again.step_id, again.step_name, again.message_id, again.is_nested) == (
            "cold",
            "s",
            "S",
            "m",
            True,
        )


def reported(completed: int, step_id: str = "") -> Event:
    proto: event_pb2.Event = _payloads.progress("pages", completed, 9, 0, None)
    proto.step_id = step_id
    return wrap(proto)


def test_progress_says_whose_it_is() -> None:
    progress = ProgressProjection()
    events = [step("inner"), reported(1, "inner"), reported(2), reported(3, "inner")]
    told = [(each.completed, each.step_id, each.step_name) for event in events if (each := progress.add(event))]
    assert told == [(1, "inner", "INNER"), (2, "", ""), (3, "inner", "INNER")]
    assert progress.last is not None
    assert progress.last.completed == 2
