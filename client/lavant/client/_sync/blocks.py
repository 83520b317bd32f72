# Generated from _async/blocks.py by client/unasync.py: change that file instead.
"""Blocks of a producer: steps, messages and tool calls."""

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.fitting import Fitting
from lavant.client._publishing.payloads import MessageDraft, pieces
from lavant.client._sync.concurrency import Lock, UsageHints, monotonic
from lavant.client._sync.publisher import Publisher
from lavant.client._wire.ids import new_id
from lavant.client.models import Usage
from lavant.v1.event_pb2 import Event, StepKind, ToolCall, ToolCallOutcome

if TYPE_CHECKING:
    from lavant.client._sync.producer import RunProducer


class OpenMessages:
    """The open messages of a run, one per step.

    Text goes into the given message, else into the step's last open one. If none is open, one is started, which ends
    where the next step, tool or message begins.
    """

    def __init__(self, run: "RunProducer", publisher: Publisher, model: str) -> None:
        self._run = run
        self._publisher = publisher
        self._model = model
        self._lock = Lock()
        self._current: dict[str, MessageDraft] = {}
        self._by_themselves: set[MessageDraft] = set()

    def append(self, kind: Literal["text", "reasoning"], chunk: str, draft: MessageDraft | None = None) -> None:
        """Append text or reasoning; what exceeds the size of a message continues in another one."""
        try:  # not `with`, as where events are queued: this runs for every token
            if self._publisher.raises and not isinstance(chunk, str):
                raise TypeError(f"text must be a str, not {type(chunk).__name__}")
            for piece in pieces(chunk):
                self._publisher.wait_for_capacity()
                with self._lock:
                    if self._publisher.admits():
                        self._publisher.enqueue_admitted(*self._deltas(kind, piece, draft or self._draft()))
        except Exception as error:
            self._publisher.guard.refuse(error)

    def begin(self, draft: MessageDraft) -> None:
        """Start a message."""
        self.end_current()
        self._publisher.wait_for_capacity()
        with self._lock:
            if self._publisher.admits():
                self._publisher.enqueue_admitted(self._placed(draft.start()))
                self._current[_scope.current_step(self._run)] = draft

    def end(self, draft: MessageDraft, finish_reason: str = "", usage: Usage | None = None) -> None:
        """Finish a message."""
        with self._lock:
            self._forget(draft)
            if draft.is_started:
                self._publisher.enqueue(self._placed(draft.finish(finish_reason, usage)), closing=True)

    def end_current(self) -> None:
        """Finish the message that was started by its text in this step, if it is still open."""
        draft = self._current.get(_scope.current_step(self._run))
        if draft is not None and draft in self._by_themselves:
            self.end(draft)

    def last(self) -> list[Event]:
        """Return the events that finish the open messages that were started by their text."""
        with self._lock:
            finished = []
            for step_id, draft in self._current.items():
                if draft in self._by_themselves and draft.is_started:
                    finished.append(draft.finish())
                    finished[-1].step_id = step_id
            return finished

    def _deltas(self, kind: Literal["text", "reasoning"], piece: str, draft: MessageDraft) -> list[Event]:
        events = []
        if not draft.fits(piece):
            events.append(draft.finish())
            draft.renew(new_id())
        if not draft.is_started:
            events.append(draft.start())
        events.append(draft.text(piece) if kind == "text" else draft.reasoning(piece))
        if step_id := _scope.current_step(self._run):
            for event in events:
                event.step_id = step_id
        return events

    def _draft(self) -> MessageDraft:
        step_id = _scope.current_step(self._run)
        draft = self._current.get(step_id)
        if draft is None:
            draft = self._current[step_id] = MessageDraft(new_id(), model=self._model)
            self._by_themselves.add(draft)
        return draft

    def _forget(self, draft: MessageDraft) -> None:
        self._by_themselves.discard(draft)
        for step_id in [step for step, current in self._current.items() if current is draft]:
            del self._current[step_id]

    def _placed(self, event: Event) -> Event:
        event.step_id = _scope.current_step(self._run)
        return event


class _Block(UsageHints):
    """Base of blocks that publish an event when they are entered and one when they are left.

    An exception of the body takes precedence over those of publishing. Leaving never waits, so a cancellation cannot
    prevent the last event.
    """

    def __init__(self, run: "RunProducer") -> None:
        self._run = run
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = monotonic()
        with self._run._publisher.guard:
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Exception) if error is not None else self._run._publisher.guard:
            self._close(error)

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self, error: BaseException | None) -> None:
        raise NotImplementedError

    def _seconds(self) -> float:
        return monotonic() - self._began


class StepBlock(_Block):
    """A step: events published in the block belong to it.

    Set `output` and `usage` to report them. If the block raises, the step fails.

    Example:
        with client.runs.start("weather-agent") as run:
            with run.step("gpt-5", kind="model_request", input="How is it?") as step:
                run.text("It is cold.")
                step.usage = Usage(input_tokens=812, output_tokens=64)
    """

    def __init__(
        self,
        run: "RunProducer",
        name: str,
        kind: "StepKind.ValueType",
        input_value: object,
        attempt: int,
        step_id: str,
    ) -> None:
        super().__init__(run)
        self.id = step_id
        self.output: Any = None
        self.usage: Usage | None = None
        self._parent = ""
        self._name, self._kind, self._input, self._attempt = name, kind, input_value, attempt

    def _open(self) -> None:
        self._parent = _scope.current_step(self._run)
        if self._attempt == 1:
            self.id = self._run._free_id("steps", self.id)
        self._run.end_message()
        self._run._publish_made(
            *(_payloads.step_started, self.id, self._parent, self._name, self._kind, self._input, self._attempt)
        )
        self._scope = _scope.enter(self._run, self.id)

    def _close(self, error: BaseException | None) -> None:
        try:
            self._run._messages.end_current()
        finally:
            _scope.leave(self._scope)
        self._run._enqueue_made(
            *(_payloads.step_finished, self.id, self._parent, self.output, error, self.usage, self._seconds())
        )


class MessageBlock(_Block):
    """A message. `run.text` within the block appends to it too. Set `usage` and `finish_reason` to report them.

    A message that exceeds the size of an event continues in further messages; `id` is that of the first.

    Example:
        with client.runs.start("weather-agent") as run:
            with run.message("user") as question:
                question.text("How is it in Oslo?")
            with run.message(model="gpt-5") as answer:
                answer.reasoning("I have no thermometer.")
                answer.text("Cold, probably.")
                answer.finish_reason = "stop"
        assert client.runs.stream(run.id).text() == "Cold, probably."
    """

    def __init__(self, run: "RunProducer", messages: OpenMessages, draft: MessageDraft) -> None:
        super().__init__(run)
        self.id = draft.message_id
        self.usage: Usage | None = None
        self.finish_reason = ""
        self._messages = messages
        self._draft = draft

    def text(self, chunk: str) -> None:
        """Append text."""
        self._messages.append("text", chunk, self._draft)

    def reasoning(self, chunk: str) -> None:
        """Append reasoning."""
        self._messages.append("reasoning", chunk, self._draft)

    def _open(self) -> None:
        self._messages.begin(self._draft)

    def _close(self, error: BaseException | None) -> None:
        self._messages.end(self._draft, self.finish_reason if error is None else "error", self.usage)


class ToolBlock(_Block):
    """A tool call. Set `result` to report it. If the block raises, the call fails.

    Example:
        with client.runs.start("weather-agent") as run:
            with run.tool("search_web", {"q": "Oslo"}) as tool:
                tool.output("searching ...")
                tool.result = ["-3 °C"]
    """

    def __init__(self, run: "RunProducer", name: str, arguments: object, tool_call_id: str | None) -> None:
        super().__init__(run)
        self.id = new_id() if tool_call_id is None else tool_call_id
        self.result: Any = None
        self._name, self._arguments = name, arguments
        self._call = ToolCall()

    def output(self, text: str) -> None:
        """Publish output of the tool while it runs. Long text becomes several events."""
        for piece in pieces(text):
            self._run._publish_made(_payloads.tool_output_delta, self.id, piece)

    def _open(self) -> None:
        self._run.end_message()
        self._run._publish_made(self._started)

    def _close(self, error: BaseException | None) -> None:
        self._run._enqueue_made(self._finished, error)

    def _started(self) -> Event:
        given = self.id
        self.id = self._run._free_id("tool_calls", given)
        fit = Fitting()
        self._call = _payloads.tool_call(self.id, self._name, self._arguments, fit, original_id=given)
        return _payloads.tool_call_started(self._call, fit)

    def _finished(self, error: BaseException | None) -> Event:
        failed = None if error is None else _payloads.error_of(error)
        outcome = (
            ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED if error is None else ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED
        )
        return _payloads.tool_call_finished(self._call, outcome, self.result, failed, self._seconds())
