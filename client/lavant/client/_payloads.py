"""Builds the events that producers publish. Pure: no ids are minted and no time is read here."""

import asyncio

from lavant.client import _json
from lavant.client._arguments import duration
from lavant.client._errors import RunCancelled, RunNotSucceeded
from lavant.client._models import Usage
from lavant.v1 import event_pb2, run_pb2
from lavant.v1.event_pb2 import Event, StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

MAX_ERROR_MESSAGE = 8_192
CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, RunCancelled)


def error_of(error: BaseException) -> run_pb2.Error:
    """Describe an exception by its text and its class; an outcome of a run by what the run said."""
    if isinstance(error, RunNotSucceeded) and error.result.error is not None:
        return run_pb2.Error(message=error.result.error.message, type=error.result.error.type or type(error).__name__)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return run_pb2.Error(message=_message_of(error) or kind.__name__, type=_json.valid_text(name))


def error_said(message: str) -> run_pb2.Error:
    """Describe an error by its text alone."""
    return run_pb2.Error(message=_json.valid_text(message))


def state_of(error: BaseException | None) -> "RunState.ValueType":
    """Tell the state in which work ends that raised this, or nothing."""
    if error is None:
        return RunState.RUN_STATE_SUCCEEDED
    return RunState.RUN_STATE_CANCELLED if isinstance(error, CANCELLATIONS) else RunState.RUN_STATE_FAILED


def run_started(input_value: object, version: str, model: str) -> Event:
    """The run is at work."""
    return Event(
        run_started=event_pb2.RunStarted(input_json=_json.encode_optional(input_value), version=version, model=model)
    )


def run_finished(
    state: "RunState.ValueType", output: object, error: run_pb2.Error | None, usage: Usage | None, seconds: float
) -> Event:
    """The run ended."""
    return Event(
        run_finished=run_pb2.RunFinished(
            state=state,
            output_json=_json.encode_optional(output),
            error=error,
            usage=usage.to_proto() if usage else None,
            duration=duration(seconds),
        )
    )


def step_started(
    step_id: str, parent_step_id: str, name: str, kind: "StepKind.ValueType", input_value: object, attempt: int
) -> Event:
    """A unit of work began. The event belongs to the step that it begins in."""
    started = event_pb2.StepStarted(
        step_id=step_id,
        parent_step_id=parent_step_id,
        name=name,
        kind=kind,
        input_json=_json.encode_optional(input_value),
        attempt=attempt,
    )
    return Event(step_id=parent_step_id, step_started=started)


def step_finished(
    step_id: str, parent_step_id: str, output: object, error: BaseException | None, usage: Usage | None, seconds: float
) -> Event:
    """A unit of work ended: well, unless there is an error."""
    finished = event_pb2.StepFinished(
        step_id=step_id,
        state=state_of(error),
        output_json=_json.encode_optional(output),
        error=error_of(error) if error else None,
        duration=duration(seconds),
        usage=usage.to_proto() if usage else None,
    )
    return Event(step_id=parent_step_id, step_finished=finished)


def tool_call(tool_call_id: str, name: str, arguments: object) -> event_pb2.ToolCall:
    """A call of a tool. Arguments that are text are taken for JSON, if they are."""
    text = _json.checked(arguments) if isinstance(arguments, str) else _json.encode_optional(arguments) or "{}"
    return event_pb2.ToolCall(
        tool_call_id=_json.valid_text(tool_call_id), tool_name=_json.valid_text(name), arguments_json=text
    )


def recorded_call(tool_call_id: str, name: str, arguments: object) -> event_pb2.ToolCall:
    """A call of a tool as `tool_call` describes it, of arguments that are too large their beginning."""
    call = tool_call(tool_call_id, name, arguments if isinstance(arguments, str) else _json.bounded(arguments))
    call.arguments_json = _json.bounded_text(call.arguments_json)
    return call


def tool_call_started(call: event_pb2.ToolCall) -> Event:
    """A tool is called."""
    return Event(tool_call_started=event_pb2.ToolCallStarted(call=call))


def tool_output_delta(tool_call_id: str, text: str) -> Event:
    """More of a tool's output."""
    return Event(tool_output_delta=event_pb2.ToolOutputDelta(tool_call_id=tool_call_id, text=_json.valid_text(text)))


def tool_call_finished(
    call: event_pb2.ToolCall,
    outcome: "ToolCallOutcome.ValueType",
    result: object = None,
    error: run_pb2.Error | None = None,
    seconds: float = 0.0,
) -> Event:
    """The tool is done."""
    finished = event_pb2.ToolCallFinished(
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        outcome=outcome,
        result_json=_json.encode(result) if error is None else "",
        error=error,
        duration=duration(seconds),
    )
    return Event(tool_call_finished=finished)


def progress(label: str, completed: int | None, total: int | None, iteration: int, usage: Usage | None) -> Event:
    """How far the run is."""
    reported = event_pb2.ProgressReported(
        label=label,
        completed=completed,
        total=total,
        iteration=iteration,
        usage=usage.to_proto() if usage else None,
    )
    return Event(progress_reported=reported)


def error_reported(error: run_pb2.Error) -> Event:
    """Something went wrong that did not end the run."""
    return Event(error_reported=event_pb2.ErrorReported(error=error))


def state_snapshot(name: str, value: object) -> Event:
    """The whole of a state."""
    return Event(state_snapshot=event_pb2.StateSnapshot(name=name, value_json=_json.encode(value)))


def custom(name: str, value: object) -> Event:
    """What no other payload says."""
    return Event(custom=event_pb2.CustomEvent(name=name, value_json=_json.encode(value)))


def artifact(
    artifact_id: str, name: str, media_type: str, content: bytes | None, uri: str | None, append: bool
) -> Event:
    """An artifact came to be, or grew."""
    updated = event_pb2.ArtifactUpdated(artifact_id=artifact_id, name=name, media_type=media_type, append=append)
    if uri is not None:
        updated.uri = uri
    else:
        updated.data = content or b""
    return Event(artifact_updated=updated)


def _message_of(error: BaseException) -> str:
    try:
        return _json.valid_text(str(error)[:MAX_ERROR_MESSAGE])
    except Exception as failure:
        return f"its text could not be made: {type(failure).__name__}"
