# Made from _async/blocks.py by client/unasync.py: change that one.
"""What a producer opens and closes: steps, messages, tool calls."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lavant.client import _payloads, _scope
from lavant.client._fitting import Fitting
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft, pieces
from lavant.client._models import Usage
from lavant.client._sync.concurrency import UsageHints, monotonic
from lavant.client._sync.messages import Messages
from lavant.v1.event_pb2 import Event, StepKind, ToolCall, ToolCallOutcome

if TYPE_CHECKING:
    from lavant.client._sync.producer import RunProducer


class _Block(UsageHints):
    """Publishes an event when it is entered and one when it is left; the body's own error comes first.

    Leaving never waits, so nothing can cut it short.
    """

    def __init__(self, run: "RunProducer") -> None:
        self._run = run
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = monotonic()
        try:
            self._open()
        except Exception as refused:
            self._run._publisher.refuse(refused)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._close(error)
        except Exception as refused:
            if error is None:
                self._run._publisher.refuse(refused)

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self, error: BaseException | None) -> None:
        raise NotImplementedError

    def _seconds(self) -> float:
        return monotonic() - self._began


class StepBlock(_Block):
    """A unit of work. What is published in the block, also by tasks begun in it, belongs to it.

    Set `output` and `usage` to report them. The step fails if the block raises.

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
    """A message. `run.text` within the block adds to it as well. Set `usage` and `finish_reason` to report them.

    One that becomes too long for an event goes on in further messages; `id` is the first one's.

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

    def __init__(self, run: "RunProducer", messages: Messages, draft: MessageDraft) -> None:
        super().__init__(run)
        self.id = draft.message_id
        self.usage: Usage | None = None
        self.finish_reason = ""
        self._messages = messages
        self._draft = draft

    def text(self, chunk: str) -> None:
        """Add to its text."""
        self._messages.say("text", chunk, self._draft)

    def reasoning(self, chunk: str) -> None:
        """Add to its reasoning."""
        self._messages.say("reasoning", chunk, self._draft)

    def _open(self) -> None:
        self._messages.begin(self._draft)

    def _close(self, error: BaseException | None) -> None:
        self._messages.end(self._draft, self.finish_reason if error is None else "error", self.usage)


class ToolBlock(_Block):
    """A call of a tool. Set `result` to report it; if the block raises, the call failed.

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
        """Publish more of what the tool writes while it works: in several events, if it is long."""
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
