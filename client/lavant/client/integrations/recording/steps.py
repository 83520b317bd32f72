"""Steps, tools and requests to models that start and end in callbacks rather than in blocks. Only queues, never waits.

Everything has a key of the framework's own: an id, an object, a tuple.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict, TypeVar

from typing_extensions import Unpack

from lavant.client import LavantError, Usage
from lavant.client._async.concurrency import monotonic
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.guard import Guard
from lavant.client._wire.arguments import step_kind
from lavant.client._wire.ids import new_id
from lavant.client.integrations.recording.messages import AnswerRecorder, MessageRecorder, ToolCallIds
from lavant.client.integrations.recording.reading import conversation_json
from lavant.client.integrations.recording.runs import EventLog, RunLog
from lavant.v1.event_pb2 import Event, StepKind, ToolCall, ToolCallOutcome

Outcome: TypeAlias = ToolCallOutcome.ValueType
_Message = TypeVar("_Message")
_Cut: TypeAlias = tuple[Usage | None, BaseException | None]


class End(TypedDict, total=False):
    """The end of a step. `outcome` is that of a tool which neither succeeded nor failed: denied, or to be retried."""

    output: object
    error: BaseException | None
    usage: Usage | None
    outcome: Outcome | None


@dataclass(slots=True, eq=False)
class _Step:
    """A step that has started and not finished; `last` is its last event, once it only waits for its children."""

    parent: Hashable | None
    parent_id: str
    name: object
    kind: "StepKind.ValueType"
    input_json: str
    started_at: float
    id: str = field(default_factory=new_id)
    attempt: int = 0
    call: ToolCall | None = None
    children: dict[Hashable, None] = field(default_factory=dict)
    last: Event | None = None
    on_cut: Callable[[], _Cut] | None = None


class StepRecorder:
    """Records steps and tools, nested as their keys say; each has its input, its output and its own usage.

    A step whose parent is not known belongs to `outer_step_id`; empty: to the run itself. A key is free again once its
    step has finished; the end of an unknown key is ignored. A step finishes after all that were started in it. `clock`
    returns seconds, for durations.
    """

    def __init__(self, log: EventLog, outer_step_id: str = "", *, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._outer_step_id = outer_step_id
        self._clock = clock
        self._open: dict[Hashable, _Step] = {}

    def is_open(self, key: Hashable | None) -> bool:
        """Return whether a key's step has started and not finished."""
        return key in self._open

    def step_id(self, key: Hashable | None) -> str:
        """Return the id of a key's step while it is open, else of the outer one."""
        step = self._open.get(key)
        return step.id if step else self._outer_step_id

    def start(
        self,
        key: Hashable,
        name: object,
        kind: str = "workflow",
        *,
        parent: Hashable | None = None,
        parent_id: str | None = None,
        input: object = None,  # noqa: A002
        input_json: str = "",
    ) -> str:
        """Start a step and return its id.

        `kind` is a word of the contract: agent, model_request, retrieval ... `input_json` replaces `input`. The step
        finishes before `parent`; it belongs to the step `parent_id` instead if that one is given.
        """
        self.finish(key, error=_unreported())
        around = self._open.get(parent)
        parent_id = self.step_id(parent) if parent_id is None else parent_id
        step = _Step(parent if around else None, parent_id, name, step_kind(kind), input_json, self._clock())
        self._open[key] = step
        if around is not None:
            around.children[key] = None
        self._enqueue_started(step, input)
        return step.id

    def start_tool(
        self,
        key: Hashable,
        name: object,
        arguments: object,
        *,
        call_id: str,
        original_id: object = None,
        parent: Hashable | None = None,
        parent_id: str | None = None,
    ) -> str:
        """Start the step of a tool that executes a call, and return its id; the arguments are the input of both.

        `call_id` is unique within the run; `original_id` is the model's id for the call, if that is another one.
        """
        call = _payloads.tool_call(call_id, name, arguments, original_id=original_id)
        step_id = self.start(key, name, "tool", parent=parent, parent_id=parent_id, input_json=call.arguments_json)
        self._open[key].call = call
        self._enqueue(step_id, _payloads.tool_call_started(call))
        return step_id

    def set_call(self, key: Hashable, call: ToolCall, event_time: int) -> None:
        """Make an open step that of a tool, whose call started at `event_time`, in nanoseconds."""
        step = self._open[key]
        step.call = call
        started = _payloads.tool_call_started(call)
        started.event_time.FromNanoseconds(event_time)
        self._enqueue(step.id, started)

    def message(self, key: Hashable | None, model: str = "") -> MessageRecorder:
        """Start an assistant's message within a step."""
        return MessageRecorder(self._log, self.step_id(key), model)

    def on_cut(self, key: Hashable, callback: Callable[[], _Cut]) -> None:
        """Call back before `finish` ends a step, for its usage and its error, if it has one of its own."""
        self._open[key].on_cut = callback

    def restart(self, key: Hashable, error: BaseException, usage: Usage | None = None) -> None:
        """End an attempt at a step with its error, and start the next one: readers forget what the first one did.

        The next attempt has the input that was given as `input_json`: no other value is kept.
        """
        step = self._open[key]
        seconds = self._seconds(step)
        self._log.enqueue(_payloads.step_finished(step.id, step.parent_id, None, error, usage, seconds))
        step.started_at = self._clock()
        self._enqueue_started(step)

    def finish(self, key: Hashable, **end: Unpack[End]) -> None:
        """Finish a step or a tool with its output, or as failed if there is an error; first all that is open in it."""
        if key not in self._open:
            return
        error = end.get("error")
        for child in self._within(key):
            self._cut(child, {"error": _unreported() if error is None else error})
        self._cut(key, end)

    def leave(self, key: Hashable, **end: Unpack[End]) -> None:
        """Finish a step or a tool as `finish` does, but not before its children have finished by themselves."""
        if key not in self._open:
            return
        self._leave(key, **end)
        parent: Hashable | None = key
        while (step := self._open.get(parent)) is not None and step.last is not None and not step.children:
            self._close(parent)
            parent = step.parent

    def detach_children(self, key: Hashable) -> None:
        """Make what is open in a step children of the step around it, so that it continues after the step's end."""
        if (step := self._open.get(key)) is None:
            return
        around = self._open.get(step.parent)
        for child in list(step.children):
            self._open[child].parent, self._open[child].parent_id = step.parent, step.parent_id
            if around is not None:
                around.children[child] = None
        step.children.clear()

    def finish_all(self, error: BaseException | None = None) -> None:
        """Finish all that is still open: the framework will not report its end any more."""
        for key in list(self._open):
            self.finish(key, error=_unreported() if error is None else error)

    def _within(self, key: Hashable) -> list[Hashable]:
        """Return all that is open within a step, the innermost first. Not recursive: nesting may be deep."""
        found = [key]
        for around in found:
            found.extend(self._open[around].children)
        return found[:0:-1]

    def _cut(self, key: Hashable, end: End) -> None:
        if (callback := self._open[key].on_cut) is not None:
            usage, failure = callback()
            end = {**end, "usage": usage, "error": failure or end.get("error")}
        self._leave(key, **end)
        self._close(key)

    def _leave(
        self,
        key: Hashable,
        output: object = None,
        error: BaseException | None = None,
        usage: Usage | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        step = self._open[key]
        if step.last is not None:
            return
        seconds = self._seconds(step)
        # What is deferred has not failed, though its call has an error that says why.
        of_step = None if outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED else error
        if step.call is None:
            step.last = _payloads.step_finished(step.id, step.parent_id, output, of_step, usage, seconds)
            return
        succeeded, failed = ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED, ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED
        chosen = outcome or (succeeded if error is None else failed)
        described = None if error is None else _payloads.error_of(error)
        answered = _payloads.tool_call_finished(step.call, chosen, output, described, seconds)
        step.last = _payloads.step_finished(step.id, step.parent_id, None, of_step, usage, seconds)
        if output is not None:
            step.last.step_finished.output_json = answered.tool_call_finished.result_json
        self._enqueue(step.id, answered)

    def _close(self, key: Hashable) -> None:
        step = self._open.pop(key)
        if (around := self._open.get(step.parent)) is not None:
            around.children.pop(key, None)
        assert step.last is not None  # noqa: S101
        self._log.enqueue(step.last)

    def _enqueue_started(self, step: _Step, input_value: object = None) -> None:
        step.attempt += 1
        event = _payloads.step_started(step.id, step.parent_id, step.name, step.kind, input_value, step.attempt)
        if step.input_json:
            event.step_started.input_json = step.input_json
        self._log.enqueue(event)

    def _seconds(self, step: _Step) -> float:
        return max(0.0, self._clock() - step.started_at)

    def _enqueue(self, step_id: str, event: Event) -> None:
        event.step_id = step_id
        self._log.enqueue(event)


class ModelRequests:
    """Records an agent's requests to models: each is a step with one message, and progress of the agent's step.

    What they used is added to the run's usage. A request that was cut off counts as one of which nothing is known.
    """

    def __init__(self, run: RunLog, steps: StepRecorder, guard: Guard) -> None:
        self._run = run
        self._steps = steps
        self._guard = guard
        self._finished = 0

    def start(
        self,
        key: Hashable,
        name: str,
        messages: Sequence[_Message],
        describe: Callable[[_Message], Iterable[Mapping[str, Any]]],
        *,
        instructions: object = None,
        model: str = "",
        parent: Hashable | None = None,
    ) -> AnswerRecorder:
        """Start the step of a request with these messages, and the message of its answer."""
        conversation = ""
        with self._guard:
            conversation = conversation_json(messages, describe, instructions)
        step_id = self._steps.start(key, name, "model_request", parent=parent, input_json=conversation)
        return AnswerRecorder(self._steps.message(key, model or name), ToolCallIds(step_id), self._guard)

    def finish(
        self, key: Hashable, *, step_id: str, usage: Usage, output: object = None, error: BaseException | None = None
    ) -> None:
        """Finish the step of a request, whose agent has the step `step_id`."""
        self._steps.finish(key, output=output, error=error, usage=usage)
        self._run.usage = usage + (self._run.usage or Usage())
        self._finished += 1
        progress = _payloads.progress("", None, None, self._finished, self._run.usage)
        progress.step_id = step_id
        self._run.enqueue(progress)


def _unreported() -> LavantError:
    return LavantError("its end was not reported")
