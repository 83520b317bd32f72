"""Constructors of the events that producers publish. They generate no ids and read no clock.

All accept arguments of any type and return an event that the server accepts; its attribute `lavant.changed` names what
was changed. Values are encoded at once.
"""

import asyncio
from collections.abc import Iterator, Sequence

from lavant.client._publishing.fitting import MAX_TEXT, Fitting
from lavant.client._wire import json_text as _json
from lavant.client._wire.arguments import duration
from lavant.client.errors import RunCancelled, RunNotSucceeded
from lavant.client.models import Usage
from lavant.contract.json_values import bounded_text
from lavant.contract.limits import MAX_VALUE_BYTES
from lavant.contract.text import to_id, to_name, to_text
from lavant.v1 import event_pb2, run_pb2
from lavant.v1.event_pb2 import Event, MessagePart, Role, StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

MAX_ERROR_MESSAGE = MAX_TEXT
MAX_ORIGINAL_ID = 1_024
# Request timeout, conflict, too early, too many requests.
_RETRYABLE = frozenset({408, 409, 425, 429})
CANCELLATIONS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, RunCancelled)


def error_of(error: BaseException) -> run_pb2.Error:
    """Return a description of an exception: its text, its class, and its HTTP status if it has one.

    The outcome of another run is described by that run's own error.
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


def error_text(message: object) -> run_pb2.Error:
    """Return a description of an error by its text alone."""
    return run_pb2.Error(message=Fitting().text("message", message) or "unknown")


def state_of(error: BaseException | None) -> "RunState.ValueType":
    """Return the state in which work ends that raised this exception; SUCCEEDED for None."""
    if error is None:
        return RunState.RUN_STATE_SUCCEEDED
    return RunState.RUN_STATE_CANCELLED if isinstance(error, CANCELLATIONS) else RunState.RUN_STATE_FAILED


def run_started(input_value: object, version: object, model: object) -> Event:
    """Return a run_started."""
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
    """Return a run_finished."""
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
    """Return a step_started, which belongs to the enclosing step."""
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
    """Return a step_finished: SUCCEEDED unless there is an error."""
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
    """Return a tool call. Arguments that are text are used as JSON if they are.

    An id that is not allowed is replaced by another one, always the same, and kept as `original_id`. An `original_id`
    that is given is the model's own.
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
    """Return a tool_call_started."""
    return (fit or Fitting()).event(tool_call_started=event_pb2.ToolCallStarted(call=call))


def tool_output_delta(tool_call_id: object, text: object) -> Event:
    """Return a tool_output_delta. The text must fit into an event."""
    return Event(tool_output_delta=event_pb2.ToolOutputDelta(tool_call_id=to_id(tool_call_id), text=to_text(text)))


def tool_call_finished(
    call: event_pb2.ToolCall,
    outcome: "ToolCallOutcome.ValueType",
    result: object = None,
    error: run_pb2.Error | None = None,
    seconds: float = 0.0,
) -> Event:
    """Return a tool_call_finished."""
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
    """Return a progress_reported."""
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
    """Return an error_reported."""
    return Event(error_reported=event_pb2.ErrorReported(error=error))


def state_snapshot(name: object, value: object) -> Event:
    """Return a state_snapshot."""
    fit = Fitting()
    snapshot = event_pb2.StateSnapshot(name=fit.name("name", name), value_json=fit.json("value_json", value))
    return fit.event(state_snapshot=snapshot)


def custom(name: object, value: object) -> Event:
    """Return a custom event."""
    fit = Fitting()
    named = fit.id("name", name) or "custom"
    return fit.event(custom=event_pb2.CustomEvent(name=named, value_json=fit.json("value_json", value)))


def artifact(
    artifact_id: object, name: object, media_type: object, content: object, uri: object, append: bool
) -> Iterator[Event]:
    """Yield the events of an artifact: several for large data, each of which extends the one before."""
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


# The finish must fit into a batch, at 4 bytes a character.
LONG = 200_000
# What the finish repeats of its tool calls, in bytes; the calls' own events say it all.
LONG_CALLS = 128 << 10


def pieces(chunk: object) -> Sequence[str]:
    """Cut text that is too long for one event; text that is not, even if empty, is one piece."""
    text = to_text(chunk)
    if len(text) <= LONG:
        return (text,)
    return [text[begin : begin + LONG] for begin in range(0, len(text), LONG)]


class MessageDraft:
    """Events of one message, in order: one start, deltas, one finish.

    Parts are counted from 0; a delta of another kind than the last one starts a part. The finish has all parts, so
    readers may skip deltas.
    """

    def __init__(self, message_id: str, role: "Role.ValueType" = Role.ROLE_ASSISTANT, model: str = "") -> None:
        self._role = role
        self._model = to_name(model)
        self.renew(message_id)

    def renew(self, message_id: str) -> None:
        """Start another message of the same role and model."""
        self.message_id = to_id(message_id)
        self.is_started = False
        self._length = self._calls_size = 0
        self._kind = ""
        self._texts: list[str] = []
        self._parts: list[MessagePart] = []

    def fits(self, chunk: str) -> bool:
        """Return whether a chunk fits into the message's last event."""
        return not self._length or self._length + len(chunk) <= LONG

    def start(self) -> Event:
        """Return the event that starts the message."""
        self.is_started = True
        return Event(
            message_started=event_pb2.MessageStarted(message_id=self.message_id, role=self._role, model=self._model)
        )

    def text(self, chunk: object) -> Event:
        """Return an event that appends text."""
        chunk = to_text(chunk)
        event = Event()
        delta = event.text_delta  # set in place: constructors with arguments take three times as long, for every token
        delta.message_id, delta.part_index, delta.text = self.message_id, self._extend("text", chunk), chunk
        return event

    def reasoning(self, chunk: object) -> Event:
        """Return an event that appends reasoning."""
        chunk = to_text(chunk)
        event = Event()
        delta = event.reasoning_delta
        delta.message_id, delta.part_index, delta.text = self.message_id, self._extend("reasoning", chunk), chunk
        return event

    def take_back(self) -> None:
        """Remove the last delta of text or reasoning, which was not queued."""
        self._length -= len(self._texts.pop())
        if not self._texts:
            self._kind = ""

    def tool_arguments(self, tool_call_id: str, tool_name: str, chunk: str, part_index: int) -> Event:
        """Return an event that appends to a tool call's arguments, in part `part_index`: see `reserve`."""
        return Event(
            tool_arguments_delta=event_pb2.ToolArgumentsDelta(
                message_id=self.message_id,
                part_index=part_index,
                tool_call_id=to_id(tool_call_id),
                tool_name=to_name(tool_name),
                arguments=to_text(chunk),
            )
        )

    def reserve(self) -> int:
        """Start a part for a tool call, to be filled by `fill`. Return its index."""
        self._close_part()
        self._parts.append(MessagePart())
        return len(self._parts) - 1

    def fill(self, part_index: int, call: event_pb2.ToolCall) -> None:
        """Set the call of a reserved part. Arguments that are too long are truncated."""
        filled = self._parts[part_index].tool_call
        filled.CopyFrom(call)
        filled.arguments_json = bounded_text(call.arguments_json, LONG_CALLS - self._calls_size)
        self._calls_size += len(filled.arguments_json)

    def finish(self, finish_reason: str = "", usage: Usage | None = None) -> Event:
        """Return the event that finishes the message."""
        self._close_part()
        return Event(
            message_finished=event_pb2.MessageFinished(
                message_id=self.message_id,
                role=self._role,
                parts=self._parts,
                finish_reason=to_name(finish_reason),
                usage=Fitting().usage(usage),
            )
        )

    def _extend(self, kind: str, chunk: str) -> int:
        if kind != self._kind:
            self._close_part()
            self._kind = kind
        self._texts.append(chunk)
        self._length += len(chunk)
        return len(self._parts)

    def _close_part(self) -> None:
        if self._kind:
            whole = "".join(self._texts)
            self._parts.append(MessagePart(text=whole) if self._kind == "text" else MessagePart(reasoning=whole))
        self._kind, self._texts = "", []
