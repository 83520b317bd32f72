"""Builds the events that producers publish. Pure: no ids are minted and no time is read here.

Every function takes whatever it is given and returns an event that the server accepts; an event's attribute
`lavant.changed` names what had to be changed. Values are encoded when the function is called.
"""

import asyncio
from collections.abc import Iterator

from lavant.client import _json
from lavant.client._arguments import duration
from lavant.client._errors import RunCancelled, RunNotSucceeded
from lavant.client._fitting import MAX_TEXT, Fitting
from lavant.client._models import Usage
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_id, to_text
from lavant.v1 import event_pb2, run_pb2
from lavant.v1.event_pb2 import Event, StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

MAX_ERROR_MESSAGE = MAX_TEXT
MAX_ORIGINAL_ID = 1_024
# Request timeout, conflict, too early, too many requests.
_RETRYABLE = frozenset({408, 409, 425, 429})
CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, RunCancelled)


def error_of(error: BaseException) -> run_pb2.Error:
    """Describe an exception by its text, its class and the HTTP status that it has, if it has one.

    An outcome of a run is described by what the run said.
    """
    if isinstance(error, RunNotSucceeded) and error.result.error is not None:
        return run_pb2.Error(message=error.result.error.message, type=error.result.error.type or type(error).__name__)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    described = run_pb2.Error(message=_message_of(error) or kind.__name__, type=to_text(name))
    # As the clients of providers call it; read past properties, which are code.
    status = vars(error).get("status_code") if isinstance(error, BaseException) else None
    if type(status) is int and 400 <= status < 600:
        described.details_json = _json.encode({"status_code": status})
        described.retryable = status in _RETRYABLE or status >= 500
    return described


def error_said(message: object) -> run_pb2.Error:
    """Describe an error by its text alone."""
    return run_pb2.Error(message=Fitting().text("message", message) or "unknown")


def state_of(error: BaseException | None) -> "RunState.ValueType":
    """Tell the state in which work ends that raised this, or nothing."""
    if error is None:
        return RunState.RUN_STATE_SUCCEEDED
    return RunState.RUN_STATE_CANCELLED if isinstance(error, CANCELLATIONS) else RunState.RUN_STATE_FAILED


def run_started(input_value: object, version: object, model: object) -> Event:
    """The run is at work."""
    fit = Fitting()
    started = event_pb2.RunStarted(
        input_json=fit.optional_json("input_json", input_value),
        version=fit.name("version", version),
        model=fit.name("model", model),
    )
    return fit.event(run_started=started)


def run_finished(
    state: "RunState.ValueType", output: object, error: run_pb2.Error | None, usage: Usage | None, seconds: float
) -> Event:
    """The run ended."""
    fit = Fitting()
    finished = run_pb2.RunFinished(
        state=state,
        output_json=fit.optional_json("output_json", output),
        error=error,
        usage=fit.usage(usage),
        duration=duration(seconds),
    )
    return fit.event(run_finished=finished)


def step_started(
    step_id: str, parent_step_id: str, name: object, kind: "StepKind.ValueType", input_value: object, attempt: int
) -> Event:
    """A unit of work began. The event belongs to the step that it begins in."""
    fit = Fitting()
    started = event_pb2.StepStarted(
        step_id=fit.id("step_id", step_id),
        parent_step_id=parent_step_id,
        name=fit.name("name", name, default="step"),
        kind=kind,
        input_json=fit.optional_json("input_json", input_value),
        attempt=fit.small("attempt", attempt, default=1),
    )
    return fit.event(parent_step_id, step_started=started)


def step_finished(
    step_id: str, parent_step_id: str, output: object, error: BaseException | None, usage: Usage | None, seconds: float
) -> Event:
    """A unit of work ended: well, unless there is an error."""
    fit = Fitting()
    finished = event_pb2.StepFinished(
        step_id=to_id(step_id),
        state=state_of(error),
        output_json=fit.optional_json("output_json", output),
        error=None if error is None else error_of(error),
        duration=duration(seconds),
        usage=fit.usage(usage),
    )
    return fit.event(parent_step_id, step_finished=finished)


def tool_call(
    tool_call_id: object, name: object, arguments: object, fit: Fitting | None = None, original_id: object = None
) -> event_pb2.ToolCall:
    """A call of a tool. Arguments that are text are taken for JSON, if they are.

    An id that is not allowed is replaced by the one that stands for it, and kept as the original one: two calls of
    one foreign id have one id here as well. `original_id` is what the model called it, if that is another id.
    """
    fit = fit or Fitting()
    allowed = to_id(tool_call_id)
    original = to_text(tool_call_id if original_id is None else original_id)
    call = event_pb2.ToolCall(
        tool_call_id=allowed,
        tool_name=fit.name("tool_name", name, default="tool"),
        original_id=original[:MAX_ORIGINAL_ID] if original != allowed else "",
    )
    if issubclass(type(arguments), str):
        call.arguments_json = fit.json_text("arguments_json", arguments)
    else:
        call.arguments_json = fit.optional_json("arguments_json", arguments) or "{}"
    return call


def tool_call_started(call: event_pb2.ToolCall, fit: Fitting | None = None) -> Event:
    """A tool is called."""
    return (fit or Fitting()).event(tool_call_started=event_pb2.ToolCallStarted(call=call))


def tool_output_delta(tool_call_id: object, text: object) -> Event:
    """More of a tool's output: a piece of text that an event holds."""
    return Event(tool_output_delta=event_pb2.ToolOutputDelta(tool_call_id=to_id(tool_call_id), text=to_text(text)))


def tool_call_finished(
    call: event_pb2.ToolCall,
    outcome: "ToolCallOutcome.ValueType",
    result: object = None,
    error: run_pb2.Error | None = None,
    seconds: float = 0.0,
) -> Event:
    """The tool is done."""
    fit = Fitting()
    finished = event_pb2.ToolCallFinished(
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        outcome=outcome,
        result_json=fit.json("result_json", result) if error is None else "",
        error=error,
        duration=duration(seconds),
    )
    return fit.event(tool_call_finished=finished)


def progress(label: object, completed: object, total: object, iteration: object, usage: Usage | None) -> Event:
    """How far the run is."""
    fit = Fitting()
    reported = event_pb2.ProgressReported(
        label=fit.text("label", label),
        completed=fit.number("completed", completed),
        total=fit.number("total", total),
        iteration=fit.small("iteration", iteration, default=0),
        usage=fit.usage(usage),
    )
    return fit.event(progress_reported=reported)


def error_reported(error: run_pb2.Error) -> Event:
    """Something went wrong that did not end the run."""
    return Event(error_reported=event_pb2.ErrorReported(error=error))


def state_snapshot(name: object, value: object) -> Event:
    """The whole of a state."""
    fit = Fitting()
    snapshot = event_pb2.StateSnapshot(name=fit.name("name", name), value_json=fit.json("value_json", value))
    return fit.event(state_snapshot=snapshot)


def custom(name: object, value: object) -> Event:
    """What no other payload says."""
    fit = Fitting()
    named = fit.id("name", name) or "custom"
    return fit.event(custom=event_pb2.CustomEvent(name=named, value_json=fit.json("value_json", value)))


def artifact(
    artifact_id: object, name: object, media_type: object, content: object, uri: object, append: bool
) -> Iterator[Event]:
    """An artifact came to be, or grew: in several events, each continuing the one before, if it is large."""
    fit = Fitting()
    about = event_pb2.ArtifactUpdated(
        artifact_id=fit.id("artifact_id", artifact_id),
        name=fit.name("name", name),
        media_type=fit.name("media_type", media_type),
        append=bool(append),
    )
    if uri is not None:
        about.uri = fit.text("uri", uri)
        yield fit.event(artifact_updated=about)
        return
    data = fit.data("data", content)
    for begin in range(0, max(1, len(data)), MAX_VALUE_BYTES):
        about.data = data[begin : begin + MAX_VALUE_BYTES]
        yield fit.event(artifact_updated=about)
        about.append = True


def _message_of(error: BaseException) -> str:
    try:
        return Fitting().text("message", str(error))
    except Exception as failure:
        return f"its text could not be made: {type(failure).__name__}"
