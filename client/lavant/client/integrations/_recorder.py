"""Records work that begins and ends in callbacks rather than in blocks, under the framework's own keys.

Only queues, never waits: what a framework calls back must not slow it.
"""

from collections.abc import Hashable, Iterator

from lavant.client import LavantError, Usage, _json, _payloads
from lavant.client._arguments import step_kind
from lavant.client._async.concurrency import monotonic
from lavant.client._ids import new_id
from lavant.client.integrations._message_recorder import Log, MessageRecorder
from lavant.v1.event_pb2 import Event, ToolCall, ToolCallOutcome


class _Work:
    """A step that has begun and not ended."""

    __slots__ = ("began", "call", "parent", "parent_step_id", "step_id")

    def __init__(self, parent: Hashable | None, parent_step_id: str, call: ToolCall | None) -> None:
        self.step_id = new_id()
        self.parent = parent
        self.parent_step_id = parent_step_id
        self.call = call
        self.began = monotonic()


class Recorder:
    """Steps and tools at work, nested as their keys say; values that are too large are recorded in part.

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

    def call_id(self, key: Hashable | None, given: str) -> str:
        """Name a tool call made within `key` apart from those of the run's other agents, which may count alike."""
        step_id = self.step_of(key)
        return f"{step_id[-12:]}.{given}" if step_id else given

    def begin_step(
        self,
        key: Hashable,
        name: str,
        kind: str = "workflow",
        *,
        parent: Hashable | None = None,
        input: object = None,  # noqa: A002
    ) -> None:
        """Begin a step. Kinds are the contract's: agent, model_request, retrieval ..."""
        work = self._begin(key, parent, None)
        self._log.enqueue(
            _payloads.step_started(
                work.step_id, work.parent_step_id, name, step_kind(kind), _json.bounded(input), attempt=1
            )
        )

    def begin_tool(
        self, key: Hashable, name: str, arguments: object, *, call_id: str, parent: Hashable | None = None
    ) -> None:
        """Begin a step for a tool at work, with its call in it. `call_id` is unique within the run: see `call_id`."""
        call = _payloads.recorded_call(call_id, name, arguments)
        work = self._begin(key, parent, call)
        self._log.enqueue(_payloads.step_started(work.step_id, work.parent_step_id, name, step_kind("tool"), None, 1))
        self._enqueue(work.step_id, _payloads.tool_call_started(call))

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
        work = self._open.get(key)
        if work is None:
            return
        for within in list(self._within(key)):
            self.end(within, error=error or _unreported())
        del self._open[key]
        output, seconds = _json.bounded(output), monotonic() - work.began
        if work.call is not None:
            failure = _payloads.error_of(error) if error else None
            chosen = outcome or ToolCallOutcome.Value(f"TOOL_CALL_OUTCOME_{'FAILED' if error else 'SUCCEEDED'}")
            self._enqueue(work.step_id, _payloads.tool_call_finished(work.call, chosen, output, failure, seconds))
            output = None
        self._log.enqueue(_payloads.step_finished(work.step_id, work.parent_step_id, output, error, usage, seconds))

    def end_all(self, error: BaseException | None = None) -> None:
        """End all that is still at work: the framework will not speak of it any more."""
        for key in list(self._open):
            self.end(key, error=error or _unreported())

    def _begin(self, key: Hashable, parent: Hashable | None, call: ToolCall | None) -> _Work:
        self.end(key, error=_unreported())
        parent = parent if parent in self._open else None
        work = self._open[key] = _Work(parent, self.step_of(parent), call)
        return work

    def _within(self, key: Hashable) -> Iterator[Hashable]:
        return (inner for inner, work in self._open.items() if work.parent == key and inner != key)

    def _enqueue(self, step_id: str, event: Event) -> None:
        event.step_id = step_id
        self._log.enqueue(event)


def _unreported() -> LavantError:
    return LavantError("its end was not reported")
