"""Records work that begins and ends in callbacks rather than in blocks, under the framework's own keys.

Only queues, never waits: what a framework calls back must not slow it.
"""

from collections.abc import Hashable

from lavant.client import LavantError, Usage, _payloads
from lavant.client._arguments import step_kind
from lavant.client._async.concurrency import monotonic
from lavant.client._ids import new_id
from lavant.client.integrations._message_recorder import Log, MessageRecorder
from lavant.v1.event_pb2 import Event, ToolCall, ToolCallOutcome

_SUCCEEDED, _FAILED = ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED, ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


class _Work:
    """A step that has begun and not ended."""

    __slots__ = ("began", "call", "inner", "parent", "parent_step_id", "step_id")

    def __init__(self, parent: Hashable | None, parent_step_id: str) -> None:
        self.step_id = new_id()
        self.parent = parent
        self.parent_step_id = parent_step_id
        self.call: ToolCall | None = None
        self.inner: dict[Hashable, None] = {}
        self.began = monotonic()


class Recorder:
    """Steps and tools at work, nested as their keys say; each has its input, its output and its own usage.

    What has no known parent belongs to `outer_step_id`; empty: the run itself. A key is free again once
    its work has ended, and an end without a beginning is ignored. Work ends after all that was begun in it.
    """

    def __init__(self, log: Log, outer_step_id: str = "") -> None:
        self._log = log
        self._outer_step_id = outer_step_id
        self._open: dict[Hashable, _Work] = {}

    def step_of(self, key: Hashable | None) -> str:
        """Return the id of a key's step, while it is at work; else of the outermost one."""
        work = self._open.get(key)
        return work.step_id if work else self._outer_step_id

    def begin_step(
        self,
        key: Hashable,
        name: object,
        kind: str = "workflow",
        *,
        parent: Hashable | None = None,
        input: object = None,  # noqa: A002
        input_json: str = "",
    ) -> None:
        """Begin a step. Kinds are the contract's: agent, model_request, retrieval ... `input_json` replaces `input`."""
        work = self._begin(key, parent)
        started = _payloads.step_started(work.step_id, work.parent_step_id, name, step_kind(kind), input, attempt=1)
        if input_json:
            started.step_started.input_json = input_json
        self._log.enqueue(started)

    def begin_tool(
        self,
        key: Hashable,
        name: object,
        arguments: object,
        *,
        call_id: str,
        original_id: object = None,
        parent: Hashable | None = None,
    ) -> None:
        """Begin a step for a tool at work, with its call in it; the arguments are the input of both.

        `call_id` is unique within the run; `original_id` is what the model named the call, if that is another id.
        """
        call = _payloads.tool_call(call_id, name, arguments, original_id=original_id)
        work = self._begin(key, parent)
        work.call = call
        started = _payloads.step_started(work.step_id, work.parent_step_id, name, step_kind("tool"), None, attempt=1)
        started.step_started.input_json = call.arguments_json
        self._log.enqueue(started)
        self._enqueue(work.step_id, _payloads.tool_call_started(call))

    def add_call(self, key: Hashable, call: ToolCall, event_time: int) -> None:
        """Make a step at work that of a tool, whose call began at `event_time`, in nanoseconds."""
        work = self._open[key]
        work.call = call
        started = _payloads.tool_call_started(call)
        started.event_time.FromNanoseconds(event_time)
        self._enqueue(work.step_id, started)

    def message(self, key: Hashable | None, model: str = "") -> MessageRecorder:
        """Begin an assistant's message within a step."""
        return MessageRecorder(self._log, self.step_of(key), model)

    def end(
        self,
        key: Hashable,
        *,
        output: object = None,
        error: BaseException | None = None,
        usage: Usage | None = None,
        outcome: "ToolCallOutcome.ValueType | None" = None,
    ) -> None:
        """End a step or a tool with what it gave: failed, if there is an error.

        `outcome` of a tool that was neither well nor failed: denied, or asked to be called again.
        """
        if key not in self._open:
            return
        for within in self._within(key):
            self._end(within, error=_unreported() if error is None else error)
        self._end(key, output, error, usage, outcome)

    def leave(self, key: Hashable) -> None:
        """Let what was begun in a key go on after its end: it belongs to what is around the key from now on."""
        if (work := self._open.get(key)) is None:
            return
        around = self._open.get(work.parent)
        for inner in list(work.inner):
            self._open[inner].parent, self._open[inner].parent_step_id = work.parent, work.parent_step_id
            if around is not None:
                around.inner[inner] = None
        work.inner.clear()

    def end_all(self, error: BaseException | None = None) -> None:
        """End all that is still at work: the framework will not speak of it any more."""
        for key in list(self._open):
            self.end(key, error=_unreported() if error is None else error)

    def _begin(self, key: Hashable, parent: Hashable | None) -> _Work:
        self.end(key, error=_unreported())
        around = self._open.get(parent)
        work = self._open[key] = _Work(parent if around else None, self.step_of(parent))
        if around is not None:
            around.inner[key] = None
        return work

    def _within(self, key: Hashable) -> list[Hashable]:
        """Return all that is at work within a key, the innermost first; however deep it is nested."""
        found = [key]
        for around in found:
            found.extend(self._open[around].inner)
        return found[:0:-1]

    def _end(
        self,
        key: Hashable,
        output: object = None,
        error: BaseException | None = None,
        usage: Usage | None = None,
        outcome: "ToolCallOutcome.ValueType | None" = None,
    ) -> None:
        work = self._open.pop(key)
        if (around := self._open.get(work.parent)) is not None:
            around.inner.pop(key, None)
        seconds = monotonic() - work.began
        if work.call is None:
            finished = _payloads.step_finished(work.step_id, work.parent_step_id, output, error, usage, seconds)
        else:
            failure = None if error is None else _payloads.error_of(error)
            chosen = outcome or (_SUCCEEDED if error is None else _FAILED)
            answered = _payloads.tool_call_finished(work.call, chosen, output, failure, seconds)
            self._enqueue(work.step_id, answered)
            finished = _payloads.step_finished(work.step_id, work.parent_step_id, None, error, usage, seconds)
            if output is not None:
                finished.step_finished.output_json = answered.tool_call_finished.result_json
        self._log.enqueue(finished)

    def _enqueue(self, step_id: str, event: Event) -> None:
        event.step_id = step_id
        self._log.enqueue(event)


def _unreported() -> LavantError:
    return LavantError("its end was not reported")
