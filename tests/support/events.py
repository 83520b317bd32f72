"""Builders of events and batches that obey the rules."""

import random
import string
from collections.abc import Iterable
from itertools import count

from lavant.v1.event_pb2 import (
    ArtifactUpdated,
    CustomEvent,
    Event,
    InputRequested,
    MessageFinished,
    MessageStarted,
    RunStarted,
    RunStateChanged,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCall,
    ToolCallFinished,
    ToolCallOutcome,
    ToolCallStarted,
)
from lavant.v1.event_service_pb2 import ProducerBatch
from lavant.v1.run_pb2 import Error, RunFinished, RunSettings, RunState

_ids = count(1)


def identified(event: Event) -> Event:
    """Set an id of its own and a time on an event."""
    event.event_id = f"event-{next(_ids)}"
    event.event_time.seconds = 1_700_000_000
    return event


def run_started(input_json: str = '{"city":"Oslo"}') -> Event:
    """The first event of a run."""
    return identified(Event(run_started=RunStarted(input_json=input_json)))


def run_state_changed(state: "RunState.ValueType" = RunState.RUN_STATE_INPUT_REQUIRED) -> Event:
    """The run waits, or works again."""
    return identified(Event(run_state_changed=RunStateChanged(state=state)))


def run_finished(state: "RunState.ValueType" = RunState.RUN_STATE_SUCCEEDED) -> Event:
    """The last event of a run."""
    finished = RunFinished(state=state, output_json='"cold"')
    if state != RunState.RUN_STATE_SUCCEEDED:
        finished.error.CopyFrom(Error(type="ValueError", message="it broke"))
    return identified(Event(run_finished=finished))


def step_started(step_id: str = "s", *, attempt: int = 1, parent: str = "") -> Event:
    """A unit of work begins."""
    return identified(Event(step_started=StepStarted(step_id=step_id, attempt=attempt, parent_step_id=parent)))


def step_finished(step_id: str = "s", state: "RunState.ValueType" = RunState.RUN_STATE_SUCCEEDED) -> Event:
    """A unit of work ends."""
    return identified(Event(step_finished=StepFinished(step_id=step_id, state=state)))


def message_started(message_id: str = "m") -> Event:
    """A message begins."""
    return identified(Event(message_started=MessageStarted(message_id=message_id)))


def text_delta(text: str = "It is ", message_id: str = "m") -> Event:
    """More of a message."""
    return identified(Event(text_delta=TextDelta(message_id=message_id, text=text)))


def message_finished(message_id: str = "m") -> Event:
    """A message is whole."""
    return identified(Event(message_finished=MessageFinished(message_id=message_id)))


def tool_call_started(tool_call_id: str = "c") -> Event:
    """A tool is called."""
    call = ToolCall(tool_call_id=tool_call_id, tool_name="search", arguments_json="{}")
    return identified(Event(tool_call_started=ToolCallStarted(call=call)))


def tool_call_finished(tool_call_id: str = "c") -> Event:
    """A tool is done."""
    outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    return identified(Event(tool_call_finished=ToolCallFinished(tool_call_id=tool_call_id, outcome=outcome)))


def input_requested(input_id: str = "i") -> Event:
    """The run asks for an answer."""
    return identified(Event(input_requested=InputRequested(input_id=input_id)))


def artifact_updated(artifact_id: str = "a", *, append: bool = False) -> Event:
    """An artifact comes to be, or grows."""
    return identified(Event(artifact_updated=ArtifactUpdated(artifact_id=artifact_id, append=append)))


def custom(name: str = "acme.note", value_json: str = "1") -> Event:
    """What no other payload says."""
    return identified(Event(custom=CustomEvent(name=name, value_json=value_json)))


def sized(size: int) -> Event:
    """An event of somewhat more than so many bytes."""
    return custom(value_json=f'"{"x" * size}"')


def a_run_of(size: int, *, finished: bool = True) -> list[Event]:
    """All events of a run that says one message: at least 2, or 4 if it finishes."""
    frame = [message_finished(), run_finished()] if finished else []
    deltas = [text_delta(f"{index} ") for index in range(size - 2 - len(frame))]
    return [run_started(), message_started(), *deltas, *frame]


def batch_of(
    events: Iterable[Event] = (),
    *,
    first: int = 1,
    producer_id: str = "p",
    epoch: int = 0,
    run_id: str = "run",
    create: RunSettings | None = None,
) -> ProducerBatch:
    """A batch of copies of events, as it would come over the wire."""
    return ProducerBatch(
        run_id=run_id,
        producer_id=producer_id,
        producer_epoch=epoch,
        first_producer_sequence=first,
        events=events,
        create=create,
    )


def noise(size: int) -> str:
    """Text that a store can hardly compress."""
    return "".join(random.Random(size).choices(string.ascii_letters + string.digits, k=size))
