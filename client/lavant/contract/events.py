"""Rules for the content and the order of a run's events."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic_core import to_json

from lavant.contract.limits import MAX_BATCH_EVENTS, MAX_ID_LENGTH, MAX_OPEN, MAX_OPEN_BYTES, NANOS, YEAR_9999
from lavant.contract.text import is_id
from lavant.contract.values import ID_BYTES, Check, TooManyOpen, Violation, check_time, value_check
from lavant.v1.event_pb2 import Event, EventType, SourceEvent, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

_FIELDS = ("steps", "messages", "tool_calls", "inputs")


class LogContent:
    """The open steps, messages, tool calls and inputs of a log, by their ids.

    Memory is bounded: what is finished is removed, at most `MAX_OPEN` of each kind may be open, and their ids have at
    most `MAX_OPEN_BYTES`, because all of it is stored again with every batch. `steps` has each step's attempt; the
    other values have no meaning. `state` is the run's state after the events, `unordered` whether its steps have any
    order. Changes since the last `mark` can be undone.
    """

    __slots__ = (
        "_bytes", "_changes", "_encoded", "_marked_state", "inputs", "messages", "state", "steps", "tool_calls",
        "unordered",
    )  # fmt: skip

    def __init__(self, state: "RunState.ValueType" = RunState.RUN_STATE_QUEUED) -> None:
        self.state = state
        self.unordered = False
        self.steps: dict[str, int] = {}
        self.messages: dict[str, int] = {}
        self.tool_calls: dict[str, int] = {}
        self.inputs: dict[str, int] = {}
        self._changes: list[tuple[dict[str, int], str, int | None]] = []
        self._marked_state = state
        self._bytes = 0
        self._encoded: bytes | None = None

    def __len__(self) -> int:
        """Return how many steps, messages, tool calls and inputs are open."""
        return len(self.steps) + len(self.messages) + len(self.tool_calls) + len(self.inputs)

    @property
    def started(self) -> bool:
        """Whether there is a run_started."""
        return self.state > RunState.RUN_STATE_QUEUED

    def mark(self) -> None:
        """Make the present content the one that `undo` restores."""
        self._changes.clear()
        self._marked_state = self.state

    def undo(self) -> None:
        """Undo all changes since the last `mark`."""
        for ids, key, before in reversed(self._changes):
            if before is None:
                self._bytes -= _size(key)
                del ids[key]
            else:
                self._bytes += 0 if key in ids else _size(key)
                ids[key] = before
        if self._changes:
            self._encoded = None
        self._changes.clear()
        self.state = self._marked_state
        if self.unordered and not self.started:  # the start of the run says so
            self.unordered, self._encoded = False, None

    def remember(self, kind: str, key: str, value: int = 1) -> None:
        """Add an id or change its value. Raises TooManyOpen if too many are open."""
        ids: dict[str, int] = getattr(self, kind)
        before = ids.get(key)
        if before is None:
            if len(ids) >= MAX_OPEN:
                raise TooManyOpen("batch.events", kind, MAX_OPEN)
            size = _size(key)
            if self._bytes + size > MAX_OPEN_BYTES:
                raise TooManyOpen("batch.events", ID_BYTES, MAX_OPEN_BYTES)
            self._bytes += size
        self._changes.append((ids, key, before))
        ids[key] = value
        self._encoded = None

    def allow_any_order(self) -> None:
        """Allow steps to be recorded in any order."""
        self.unordered, self._encoded = True, None

    def forget(self, kind: str, key: str) -> None:
        """Remove an id."""
        ids: dict[str, int] = getattr(self, kind)
        self._changes.append((ids, key, ids.pop(key)))
        self._bytes -= _size(key)
        self._encoded = None

    def encode(self) -> bytes:
        """Return the content as JSON, without the state, which the Run has. Most batches change none of it."""
        if self._encoded is None:
            value: dict[str, Any] = {kind: list(ids) for kind in _FIELDS[1:] if (ids := getattr(self, kind))}
            if self.steps:
                value["steps"] = self.steps
            if self.unordered:
                value["unordered"] = True
            self._encoded = to_json(value)
        return self._encoded

    @classmethod
    def decode(cls, encoded: dict[str, Any], state: "RunState.ValueType") -> "LogContent":
        """Return the content of the value of such JSON, for a run in this state."""
        content = cls(state)
        content.unordered = encoded.get("unordered", False)
        content.steps.update(encoded.get("steps", {}))
        for kind in _FIELDS[1:]:
            getattr(content, kind).update(dict.fromkeys(encoded.get(kind, ()), 1))
        content._bytes = sum(_size(key) for kind in _FIELDS for key in getattr(content, kind))
        return content


def _size(key: str) -> int:
    """Return the UTF-8 bytes of an id."""
    return len(key) if key.isascii() else len(key.encode())


ID_RULE: Final = f"must have 1 to {MAX_ID_LENGTH} characters, none of them a control character"
_RUNNING: Final = RunState.RUN_STATE_RUNNING
_SUCCEEDED: Final = RunState.RUN_STATE_SUCCEEDED
_TERMINAL_STATES = frozenset(state for state in RunState.values() if state >= RunState.RUN_STATE_SUCCEEDED)
_WORKING_STATES = (RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_INPUT_REQUIRED)

_PATHS = tuple(f"batch.events[{index}]" for index in range(MAX_BATCH_EVENTS))

_TEXT_DELTA: Final = int(EventType.EVENT_TYPE_TEXT_DELTA)

Rule = Callable[[LogContent, str, Event], None]


def apply(content: LogContent, events: Iterable[Event], *, system_type: int | None = None) -> list[int]:
    """Check the next events of a log, update `content`, and return their EventTypes.

    With a `system_type`, the log is the server's own: it may hold what producers must not write, and events without a
    payload, which are records of that type. Raises Violation with the field's path in `batch.events`, or TooManyOpen.
    `content` may then be changed in part: undo it.
    """
    types: list[int] = []
    path = ""
    messages, steps = content.messages, content.steps
    try:
        for path, event in zip(_PATHS, events, strict=False):
            event_id, time, payload = event.event_id, event.event_time, event.WhichOneof("payload")
            if not (0 < len(event_id) <= MAX_ID_LENGTH and event_id.isprintable()):
                raise Violation(f"{path}.event_id", f"must have 1 to {MAX_ID_LENGTH} printable characters")
            if not (0 < time.seconds <= YEAR_9999 and 0 <= time.nanos < NANOS):
                _check_time(path, event)
            if payload == "text_delta":  # as most events are: all rules at once, and one by one below if one is broken
                delta = event.text_delta
                if (
                    delta.message_id in messages
                    and delta.part_index >= 0
                    and content.state in _WORKING_STATES
                    and (not (step_id := event.step_id) or step_id in steps)
                    and not event.HasField("source")
                ):
                    types.append(_TEXT_DELTA)
                    continue
            if payload is None:
                if system_type is not None and content.state in _WORKING_STATES:
                    types.append(system_type)
                    continue
                raise Violation(f"{path}.payload", "must be set to a payload that this server knows")
            if content.state not in _WORKING_STATES:
                _check_place(content, path, payload)
            if _check_source and event.HasField("source"):
                _check_source(f"{path}.source", event.source)
            if payload in _SERVER_WRITES and system_type is None:
                _SERVER_WRITES[payload](path, event)
            event_type, rule, check = _RULES[payload]
            if event.step_id and payload != "step_started":
                _check_step(content, path, event)
            rule(content, path, event)
            if check:
                check(f"{path}.{payload}", getattr(event, payload))
            types.append(event_type)
    except TooManyOpen as refused:
        refused.path = path
        raise
    return types


def check_id(path: str, value: str) -> None:
    """Raise Violation unless a value is a valid id."""
    if not is_id(value):
        raise Violation(path, ID_RULE)


def _check_time(path: str, event: Event) -> None:
    check_time(f"{path}.event_time", event.event_time)
    if not event.HasField("event_time"):
        raise Violation(f"{path}.event_time", "must be set")


def _check_place(content: LogContent, path: str, payload: str) -> None:
    if content.started:
        raise Violation(path, "nothing may follow run_finished; send it as the last event")
    if payload != "run_started":
        raise Violation(f"{path}.{payload}", "the first event of a run must be run_started")


def _check_step(content: LogContent, path: str, event: Event) -> None:
    if event.step_id not in content.steps:
        raise Violation(f"{path}.step_id", "must be empty or the id of an open step; send step_started first")


def _check_known(ids: dict[str, int], path: str, value: str, first: str) -> None:
    if value not in ids:
        raise Violation(path, f"must be the id of one that is open; send {first} first")


def _check_new(ids: dict[str, int], path: str, value: str, last: str) -> None:
    check_id(path, value)
    if value in ids:
        raise Violation(path, f"is open already; choose another id, or send {last} first")


def _check_terminal(path: str, state: "RunState.ValueType") -> None:
    if state not in _TERMINAL_STATES:
        raise Violation(path, "must be a terminal state")


def _run_started(content: LogContent, path: str, event: Event) -> None:
    if content.started:
        raise Violation(f"{path}.run_started", "a run starts once; leave it out")
    content.state = RunState.RUN_STATE_RUNNING
    if event.run_started.unordered_steps:
        content.allow_any_order()


def _run_state_changed(content: LogContent, path: str, event: Event) -> None:
    state = event.run_state_changed.state
    if state not in _WORKING_STATES:
        raise Violation(f"{path}.run_state_changed.state", "must be RUNNING or INPUT_REQUIRED")
    content.state = state


def _run_finished(content: LogContent, path: str, event: Event) -> None:
    finished = event.run_finished
    _check_terminal(f"{path}.run_finished.state", finished.state)
    if finished.state != _SUCCEEDED and not finished.HasField("error"):
        raise Violation(f"{path}.run_finished.error", "must say what went wrong unless the state is SUCCEEDED")
    content.state = finished.state


def _step_started(content: LogContent, path: str, event: Event) -> None:
    started, at = event.step_started, f"{path}.step_started"
    check_id(f"{at}.step_id", started.step_id)
    attempt = started.attempt or 1
    if attempt < 0:
        raise Violation(f"{at}.attempt", "must not be negative; the first try is 1")
    if attempt <= content.steps.get(started.step_id, 0):
        raise Violation(f"{at}.attempt", "the step is open already; a retry needs a higher attempt")
    parent = started.parent_step_id
    if parent and content.unordered:
        check_id(f"{at}.parent_step_id", parent)
    elif parent and parent not in content.steps:
        raise Violation(f"{at}.parent_step_id", "must be empty or the id of another open step")
    if parent == started.step_id:
        raise Violation(f"{at}.parent_step_id", "must be the id of another step")
    content.remember("steps", started.step_id, attempt)
    if event.step_id:
        _check_step(content, path, event)


def _step_finished(content: LogContent, path: str, event: Event) -> None:
    finished, at = event.step_finished, f"{path}.step_finished"
    _check_known(content.steps, f"{at}.step_id", finished.step_id, "step_started")
    _check_terminal(f"{at}.state", finished.state)
    content.forget("steps", finished.step_id)


def _message_started(content: LogContent, path: str, event: Event) -> None:
    message_id = event.message_started.message_id
    _check_new(content.messages, f"{path}.message_started.message_id", message_id, "message_finished")
    content.remember("messages", message_id)


def _text_delta(content: LogContent, path: str, event: Event) -> None:
    delta = event.text_delta
    if delta.message_id not in content.messages or delta.part_index < 0:
        _refuse_delta(content, f"{path}.text_delta", delta.message_id)


def _reasoning_delta(content: LogContent, path: str, event: Event) -> None:
    delta = event.reasoning_delta
    if delta.message_id not in content.messages or delta.part_index < 0:
        _refuse_delta(content, f"{path}.reasoning_delta", delta.message_id)


def _tool_arguments_delta(content: LogContent, path: str, event: Event) -> None:
    delta = event.tool_arguments_delta
    if delta.message_id not in content.messages or delta.part_index < 0:
        _refuse_delta(content, f"{path}.tool_arguments_delta", delta.message_id)
    check_id(f"{path}.tool_arguments_delta.tool_call_id", delta.tool_call_id)


def _refuse_delta(content: LogContent, path: str, message_id: str) -> None:
    _check_known(content.messages, f"{path}.message_id", message_id, "message_started")
    raise Violation(f"{path}.part_index", "must not be negative; parts are counted from 0")


def _message_finished(content: LogContent, path: str, event: Event) -> None:
    message_id = event.message_finished.message_id
    _check_known(content.messages, f"{path}.message_finished.message_id", message_id, "message_started")
    content.forget("messages", message_id)


def _tool_call_started(content: LogContent, path: str, event: Event) -> None:
    started, at = event.tool_call_started, f"{path}.tool_call_started.call"
    if not started.HasField("call"):
        raise Violation(at, "must say what is called")
    _check_new(content.tool_calls, f"{at}.tool_call_id", started.call.tool_call_id, "tool_call_finished")
    content.remember("tool_calls", started.call.tool_call_id)


def _tool_output_delta(content: LogContent, path: str, event: Event) -> None:
    delta = event.tool_output_delta
    if delta.tool_call_id not in content.tool_calls:
        at = f"{path}.tool_output_delta.tool_call_id"
        _check_known(content.tool_calls, at, delta.tool_call_id, "tool_call_started")


def _tool_call_finished(content: LogContent, path: str, event: Event) -> None:
    finished, at = event.tool_call_finished, f"{path}.tool_call_finished"
    _check_known(content.tool_calls, f"{at}.tool_call_id", finished.tool_call_id, "tool_call_started")
    if finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_UNSPECIFIED:
        raise Violation(f"{at}.outcome", "must say how the call ended")
    content.forget("tool_calls", finished.tool_call_id)


def _artifact_updated(_content: LogContent, path: str, event: Event) -> None:
    check_id(f"{path}.artifact_updated.artifact_id", event.artifact_updated.artifact_id)


def _input_requested(content: LogContent, path: str, event: Event) -> None:
    input_id = event.input_requested.input_id
    _check_new(content.inputs, f"{path}.input_requested.input_id", input_id, "input_resolved")
    content.remember("inputs", input_id)


def _input_resolved(content: LogContent, path: str, event: Event) -> None:
    input_id = event.input_resolved.input_id
    _check_known(content.inputs, f"{path}.input_resolved.input_id", input_id, "input_requested")
    content.forget("inputs", input_id)


def _custom(_content: LogContent, path: str, event: Event) -> None:
    check_id(f"{path}.custom.name", event.custom.name)


def _row_finished(_content: LogContent, path: str, event: Event) -> None:
    row, at = event.row_finished, f"{path}.row_finished"
    check_id(f"{at}.row_id", row.row_id)
    if row.iteration < 1:
        raise Violation(f"{at}.iteration", "must be at least 1; iterations are counted from 1")


def _score_recorded(_content: LogContent, path: str, event: Event) -> None:
    check_id(f"{path}.score_recorded.subject_run_id", event.score_recorded.subject_run_id)


def _refuse_system_event(path: str, event: Event) -> None:
    payload = event.WhichOneof("payload")
    raise Violation(
        f"{path}.{payload}", "is written by the server only; record scores with RecordScore or row_finished"
    )


def _refuse_system_fields(path: str, event: Event) -> None:
    for field, _ in event.row_finished.ListFields():
        if field.name in _SET_BY_THE_SERVER:
            raise Violation(f"{path}.row_finished.{field.name}", "is set by the server only; leave it out")


_SET_BY_THE_SERVER: Final = {"rule_id", "subject_name", "subject_time", "labels"}
_SERVER_WRITES: dict[str, Callable[[str, Event], None]] = {
    "score_recorded": _refuse_system_event,
    "alert_changed": _refuse_system_event,
    "audit_recorded": _refuse_system_event,
    "row_finished": _refuse_system_fields,
}


def _free(_content: LogContent, _path: str, _event: Event) -> None:
    pass


_CHECKS: dict[str, Rule] = {
    "run_started": _run_started,
    "run_state_changed": _run_state_changed,
    "run_finished": _run_finished,
    "step_started": _step_started,
    "step_finished": _step_finished,
    "message_started": _message_started,
    "text_delta": _text_delta,
    "reasoning_delta": _reasoning_delta,
    "tool_arguments_delta": _tool_arguments_delta,
    "message_finished": _message_finished,
    "tool_call_started": _tool_call_started,
    "tool_output_delta": _tool_output_delta,
    "tool_call_finished": _tool_call_finished,
    "progress_reported": _free,
    "error_reported": _free,
    "state_snapshot": _free,
    "state_delta": _free,
    "artifact_updated": _artifact_updated,
    "input_requested": _input_requested,
    "input_resolved": _input_resolved,
    "custom": _custom,
    "row_finished": _row_finished,
    "score_recorded": _score_recorded,
    "alert_changed": _free,
    "audit_recorded": _free,
}


def _rules() -> dict[str, tuple[int, Rule, Check | None]]:
    payloads = Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    known = set(EventType.values())
    assert all(field.number in known for field in payloads)  # noqa: S101 - the contract says so
    checks = {field.name: value_check(field.message_type) for field in payloads if field.message_type}
    return {field.name: (field.number, _CHECKS[field.name], checks[field.name]) for field in payloads}


_RULES = _rules()
_check_source = value_check(SourceEvent.DESCRIPTOR)
