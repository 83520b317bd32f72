# Generated from _async/producer.py by client/unasync.py: change that file instead.
"""A run that this process executes, and the methods that publish its events."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.outbox import Kind
from lavant.client._publishing.payloads import MessageDraft
from lavant.client._sync.backlog import LAST_SECONDS
from lavant.client._sync.blocks import MessageBlock, OpenMessages, StepBlock, ToolBlock
from lavant.client._sync.concurrency import UsageHints
from lavant.client._sync.publisher import Publisher
from lavant.client._sync.transport import Connection
from lavant.client._wire.arguments import check_optional_seconds, choose, step_kind
from lavant.client._wire.ids import new_id
from lavant.client.errors import RunCancelled
from lavant.client.models import ErrorInfo, EvaluationSummary, Receipt, RunResult, Usage
from lavant.client.options import OnError, ProducerOptions
from lavant.client.states import Role, RunState
from lavant.contract.text import to_id
from lavant.v1.event_pb2 import ROLE_ASSISTANT, STEP_KIND_WORKFLOW, Event
from lavant.v1.run_pb2 import RUN_STATE_FAILED, Error
from lavant.v1.run_service_pb2 import CreateRunRequest

_Made = TypeVar("_Made")


class RunProducer(UsageHints):
    """A run that this process executes: `with client.runs.start(...) as run`.

    Leaving the block ends the run: SUCCEEDED with `output`, FAILED with the error if the block raised, CANCELLED if it
    was cancelled. Code without a block calls `begin` and `end`, which never wait. Events are queued and sent in the
    background; the first batch creates the run, and a run that ends at once is one call. A run that was not ended is
    ended as CANCELLED when the client is closed, or the process ends. For a process that is killed
    there is `producer_timeout`.

    With `on_error="log"`, the default, no method raises for what cannot be recorded, and entering the block does not
    wait. Values that the server would refuse are changed to the closest ones that it accepts, or an event with a note
    replaces them; the first is logged. Leaving the block waits up to 2 seconds until all events are durable. While the
    server cannot be reached nothing waits: up to `queue_bytes` per run are kept and sent later, also after the block,
    while the client is open; further events are dropped and counted.

    With `on_error="raise"`, entering the block waits until the run is created, and raises RunExists if a run with other
    settings has the id. Methods raise InvalidField, ValueError
    or TypeError for values that cannot be recorded, ProducerOverloaded when the queue was full for `block_timeout`, and
    errors of the server that a retry cannot solve. Leaving the block raises if events are not durable within
    `close_timeout`; if `output` or `usage` cannot be recorded, the run ends as FAILED.

    Each event is stored exactly once, also over reconnects; a process that dies loses events without a receipt. Set
    `output`, `usage` and `summary` to report them at the end; set `duration` in seconds for work that is recorded after
    it was done.

    Thread-safe; a thread without a step publishes into the run.

    Example:
        with client.runs.start("weather-agent") as run:
            with run.tool("search_web", {"q": "Oslo"}) as tool:
                tool.result = ["-3 °C"]
            run.text("It is cold.")
            run.progress("sources", completed=1, total=1)
            run.usage = Usage(input_tokens=812, output_tokens=64)
            run.output = {"answer": "cold"}
    """

    def __init__(
        self,
        connection: Connection,
        create: CreateRunRequest,
        started: Event,
        options: ProducerOptions,
        on_error: OnError = "log",
    ) -> None:
        self.id = create.run_id
        self.output: Any = None
        self.usage: Usage | None = None
        # In seconds, of work that is recorded after it was done; None: the time since the run has begun.
        self.duration: float | None = None
        self.summary: EvaluationSummary | None = None
        self._started = started
        self._publisher = Publisher(connection, create, options, on_error)
        self._messages = OpenMessages(self, self._publisher, started.run_started.model)
        self._raises = on_error == "raise"
        self._timeout = connection.timeout

    @property
    def last_receipt(self) -> Receipt | None:
        """Receipt of the last stored batch; None before the first."""
        return self._publisher.last_receipt

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked the run to stop."""
        return self._publisher.cancel_reason is not None

    @property
    def cancel_reason(self) -> str:
        """Reason for the cancellation, for people; empty if there is none."""
        return self._publisher.cancel_reason or ""

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelled if somebody has asked the run to stop. Let the exception leave the block."""
        if self.cancelled:
            reason = ErrorInfo(message=self.cancel_reason or "cancelled")
            raise RunCancelled(RunResult(run_id=self.id, state=RunState.CANCELLED, error=reason))

    def wait_cancelled(self) -> None:
        """Wait until somebody asks the run to stop."""
        self._publisher.cancellation.wait_for(lambda: self.cancelled)

    def text(self, chunk: str) -> None:
        """Append text to the assistant's message that is open in this step; start one if none is open.

        Example:
            with client.runs.start("weather-agent") as run:
                for chunk in ("It ", "is ", "cold."):
                    run.text(chunk)
            assert client.runs.stream(run.id).text() == "It is cold."
        """
        self._messages.append("text", chunk)

    def reasoning(self, chunk: str) -> None:
        """Append reasoning to the assistant's message that is open in this step; start one if none is open."""
        self._messages.append("reasoning", chunk)

    def message(self, role: str = "assistant", model: str = "") -> MessageBlock:
        """Return a block that is a message of `role`: "assistant", "user", "system" or "tool".

        Only messages of assistants are part of the run's text.

        Example:
            with client.runs.start("weather-agent") as run:
                with run.message("user") as question:
                    question.text("How is it in Oslo?")
                run.text("Cold.")
            assert client.runs.stream(run.id).text() == "Cold."
        """
        number = self._made(choose, "role", role, Role.numbers()) or ROLE_ASSISTANT
        return MessageBlock(self, self._messages, MessageDraft(new_id(), number, model))

    def step(
        self,
        name: str,
        kind: str = "workflow",
        *,
        input: object = None,  # noqa: A002
        attempt: int = 1,
        step_id: str | None = None,
    ) -> StepBlock:
        """Return a block that is a step.

        `kind` is one of StepKind: "agent", "model_request", "tool", "workflow", "retrieval", "guardrail", "evaluator".
        With the `step_id` of an earlier step and the next `attempt`, the step replaces that one: readers drop what the
        earlier attempt published. Otherwise it is a new step.

        Example:
            with client.runs.start("weather-agent") as run:
                try:
                    with run.step("look") as look:
                        raise LookupError("no such city")
                except LookupError:
                    with run.step("look", attempt=2, step_id=look.id) as look:
                        look.output = "cold"
            [step] = (client.runs.stream(run.id).collect()).steps
            assert (step.attempt, step.output) == (2, "cold")
        """
        number = self._made(step_kind, kind) or STEP_KIND_WORKFLOW
        return StepBlock(self, name, number, input, attempt, new_id() if step_id is None else step_id)

    def tool(self, name: str, arguments: object = None, *, tool_call_id: str | None = None) -> ToolBlock:
        """Return a block that is a tool call. `tool_call_id` is the model's own id, if it has one.

        Example:
            with client.runs.start("weather-agent") as run:
                with run.tool("search_web", {"q": "Oslo"}, tool_call_id="call-1") as tool:
                    tool.result = ["-3 °C"]
            assert [call.id for call in client.runs.stream(run.id).tool_calls] == ["call-1"]
        """
        return ToolBlock(self, name, arguments, tool_call_id)

    def progress(
        self,
        label: str = "",
        completed: int | None = None,
        total: int | None = None,
        *,
        iteration: int = 0,
        usage: Usage | None = None,
    ) -> None:
        """Report the progress of the run or of this step. `total` is None if it is not known."""
        self._publish_made(_payloads.progress, label, completed, total, iteration, usage)

    def error(self, error: BaseException | str) -> None:
        """Report an error that does not end the run."""
        described = self._made(_payloads.error_text if isinstance(error, str) else _payloads.error_of, error)
        self._publish_made(_payloads.error_reported, described)

    def state(self, value: object, name: str = "") -> None:
        """Publish a whole state, from which readers continue. `name` distinguishes several states."""
        self._publish_made(_payloads.state_snapshot, name, value)

    def custom(self, name: str, value: object = None) -> None:
        """Publish an event of your own, under a dotted name such as "weather.measured"."""
        self._publish_made(_payloads.custom, name, value)

    def artifact(
        self,
        name: str,
        content: bytes | None = None,
        *,
        uri: str | None = None,
        media_type: str = "application/octet-stream",
        artifact_id: str | None = None,
        append: bool = False,
    ) -> str:
        """Publish a file by its content or its URI. Return its id.

        With an `artifact_id` the earlier content is replaced, or extended with `append`. Large content becomes several
        events.

        Example:
            with client.runs.start("weather-agent") as run:
                report = run.artifact("report.txt", b"Oslo: ", media_type="text/plain")
                run.artifact("report.txt", b"-3 C", artifact_id=report, append=True)
        """
        chosen = new_id() if artifact_id is None else artifact_id
        made = _payloads.artifact(chosen, name, media_type, content, uri, append)
        while (piece := self._made(next, made, None)) is not None:
            self.publish(piece)
        return chosen

    def publish(self, event: Event) -> None:
        """Queue an event of the contract, waiting while the queue is full. The caller must not change it afterwards.

        Fills in the event's id and time, and the step unless one is set.
        """
        if self._made(self._place, event):
            self._publisher.publish(event)

    def _free_id(self, kind: Kind, given: object) -> str:
        """Return the id to use for what was given an id: the given one, or a new one while that is open."""
        allowed = to_id(given) or new_id()
        return allowed if not self._publisher.is_open(kind, allowed) else to_id(f"{given}~{new_id()}")

    def _publish_made(self, make: Callable[..., Event], *arguments: object) -> None:
        """Publish the event that `make` returns; refuse arguments of which it cannot make one."""
        event = self._made(make, *arguments)
        if event is not None:
            self.publish(event)

    def _enqueue_made(self, make: Callable[..., Event], *arguments: object) -> None:
        """Queue an event that closes something, without waiting."""
        event = self._made(make, *arguments)
        if event is not None and self._place(event):
            self._publisher.enqueue(event, closing=True)

    def _place(self, event: Event) -> bool:
        event.step_id = event.step_id or _scope.current_step(self)
        return True

    def _made(self, make: Callable[..., _Made], *arguments: Any) -> _Made | None:
        """Return the result of `make`. If it raises, raise that if the run is strict, else log it and return None."""
        try:  # not `with`: this runs for every token, and entering and leaving the guard costs a microsecond
            return make(*arguments)
        except Exception as error:
            self._publisher.guard.refuse(error)
            return None

    def enqueue(self, event: Event) -> None:
        """Queue an event of the contract without waiting. Raises ProducerOverloaded if the queue is full.

        Fills in the event's id and time, and the step unless one is set.
        """
        if self._made(self._place, event):
            self._publisher.enqueue(event)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all queued events are durable. Return whether they are.

        With `on_error="log"`, returns False after `timeout` seconds; without a timeout, when the server is known to be
        unreachable. With "raise", raises ProducerOverloaded after `timeout` seconds.
        """
        return self._publisher.flush(self._made(check_optional_seconds, "timeout", timeout))

    def end_message(self) -> None:
        """Finish the message that `text` or `reasoning` started in this step, if one is open."""
        self._messages.end_current()

    def begin(self) -> Self:
        """Start the run without a block and without waiting. End it with `end`.

        Queues run_started, with which the server creates the run. A second call has no effect. With `on_error="log"`
        nothing raises: a run that cannot be recorded is logged. With "raise", what the server refuses is raised by
        `flush` and later methods.

        Example:
            run = client.runs.start("weather-agent").begin()
            run.output = {"answer": "cold"}
            run.end()
            assert run.flush()
        """
        self._publisher.begin(self._started)
        _scope.has_started(self)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End the run without waiting: SUCCEEDED without an `error`, else FAILED or CANCELLED.

        Queues the end of an open message and run_finished with `output`, `usage` and `summary` as they are now, even if
        the queue is full. Only the first call has an effect, and none raises. Later events are not recorded. To wait
        until the end is durable, call `flush`.
        """
        self._publisher.end(partial(self._last_events, error))

    def __enter__(self) -> Self:
        self.begin()
        self._wait_created()
        self._scope = _scope.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _scope.leave(self._scope)
        self.end(error)
        self._wait_ended(error)

    def _wait_created(self) -> None:
        """Wait until the run exists if the run is strict; end it if it cannot be created."""
        if self._raises:
            try:
                self._publisher.delivery.wait_created(self._timeout)
            except BaseException as error:
                self.end(error)
                self._publisher.delivery.wait_over(LAST_SECONDS, patient=False)
                raise

    def _wait_ended(self, error: BaseException | None) -> None:
        """Wait until the end of the run is durable. `error` is the error that the run ended with."""
        try:
            self._publisher.wait_ended()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and run {self.id} could not be finished: {_payloads.error_of(failure).message}")

    def _last_events(self, error: BaseException | None, refused: Exception | None) -> list[Event]:
        """Return the last events of the run.

        They leave out its values if `refused`, the error that kept earlier events from being stored.
        """
        seconds = self._publisher.seconds if self.duration is None else self.duration
        state, described = _payloads.state_of(error), None if error is None else _described(error)
        if described is not None and self.cancelled:
            described.message = self.cancel_reason or described.message
        if refused is None:
            finished = _payloads.run_finished(state, self.output, described, self.usage, seconds)
            summary = None if self.summary is None else self._made(lambda given: given.to_proto(), self.summary)
            if summary is not None:
                finished.run_finished.evaluation.CopyFrom(summary)
            return [*self._messages.last(), finished]
        if error is None and self._raises:
            state, described = RUN_STATE_FAILED, _described(refused)
        return [_payloads.run_finished(state, None, described, None, seconds)]


def _described(error: BaseException) -> Error:
    try:
        return _payloads.error_of(error)
    except Exception:  # A run ends whatever its error does when it is asked what it is.
        return Error(message=type(error).__name__)
