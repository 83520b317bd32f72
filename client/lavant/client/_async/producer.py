"""Publishing a run's events."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from lavant.client import _payloads, _scope
from lavant.client._arguments import check_optional_seconds, choose, step_kind
from lavant.client._async.backlog import LAST_SECONDS
from lavant.client._async.blocks import AsyncMessageBlock, AsyncStepBlock, AsyncToolBlock
from lavant.client._async.concurrency import UsageHints
from lavant.client._async.connection import Connection
from lavant.client._async.messages import Messages
from lavant.client._async.publisher import Publisher
from lavant.client._errors import RunCancelled
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft
from lavant.client._models import ErrorInfo, EvaluationSummary, Receipt, RunResult, Usage
from lavant.client._options import OnError, ProducerOptions
from lavant.client._outbox import Kind
from lavant.client._states import RunState
from lavant.contract.text import to_id
from lavant.v1.event_pb2 import Event, Role, StepKind
from lavant.v1.run_pb2 import RUN_STATE_FAILED, Error
from lavant.v1.run_service_pb2 import CreateRunRequest

_Made = TypeVar("_Made")
_ROLES = {name.removeprefix("ROLE_").lower(): number for name, number in Role.items() if number}


class AsyncRunProducer(UsageHints):
    """A run that this process executes: `async with client.runs.start(...) as run`.

    Leaving the block ends the run: SUCCEEDED with `output`; FAILED with the error if the block raised; CANCELLED if
    it was cancelled. Whoever cannot use a block calls `begin` and `end`, which never wait. Events are queued and sent
    by a task of the client's own, the creation of the run first: a run that has begun ends, also if its task is
    cancelled, however often. One that nobody has ended is ended as CANCELLED when the client is closed, the event
    loop ends or the process exits; no handler runs when a process is killed: `producer_timeout` is for that.

    With `on_error="log"`, the default, no method raises for what cannot be recorded, and entering does not wait. What
    the server would not store is recorded as far as it can be, logged once, and costs neither later events nor the
    run's outcome. Leaving waits until all is durable, for 2 seconds at most. While the server is out of reach nothing
    waits: events are kept, up to `queue_bytes` per run, and sent when it is back, also after the block was left, as
    long as the client is open; events for which there is no room are dropped and counted.

    With `on_error="raise"`, entering waits until the run is created, methods raise InvalidField, ValueError or
    TypeError for what cannot be recorded, ProducerOverloaded when the queue was full for `block_timeout`, and what
    the server has refused for good; leaving raises what is not durable after `close_timeout`, and the run FAILED if
    its `output` or `usage` cannot be recorded.

    An event is stored exactly once, also over reconnects, but a process that dies takes with it what had no receipt
    yet. For one event loop; not thread-safe.

    Example:
        async with client.runs.start("weather-agent") as run:
            async with run.tool("search_web", {"q": "Oslo"}) as tool:
                tool.result = ["-3 °C"]
            await run.text("It is cold.")
            await run.progress("sources", completed=1, total=1)
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
        self._messages = Messages(self, self._publisher, started.run_started.model)
        self._raises = on_error == "raise"
        self._timeout = connection.timeout

    @property
    def last_receipt(self) -> Receipt | None:
        """Where the last batch ended up, None before the first receipt."""
        return self._publisher.last_receipt

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._publisher.cancel_reason is not None

    @property
    def cancel_reason(self) -> str:
        """Why it should stop, for people."""
        return self._publisher.cancel_reason or ""

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelled if somebody asked the run to stop: let it leave the block."""
        if self.cancelled:
            reason = ErrorInfo(message=self.cancel_reason or "cancelled")
            raise RunCancelled(RunResult(run_id=self.id, state=RunState.CANCELLED, error=reason))

    async def wait_cancelled(self) -> None:
        """Wait until somebody asks the run to stop."""
        await self._publisher.changed.wait_for(lambda: self.cancelled)

    async def text(self, chunk: str) -> None:
        """Say more, in the assistant's message that is open in this step, or a new one.

        Example:
            async with client.runs.start("weather-agent") as run:
                for chunk in ("It ", "is ", "cold."):
                    await run.text(chunk)
            assert await client.runs.stream(run.id).text() == "It is cold."
        """
        await self._messages.say("text", chunk)

    async def reasoning(self, chunk: str) -> None:
        """Reason more, in the assistant's message that is open in this step, or a new one."""
        await self._messages.say("reasoning", chunk)

    def message(self, role: str = "assistant", model: str = "") -> AsyncMessageBlock:
        """Open a message, for the length of a block. Roles are the contract's: assistant, user, system, tool.

        Only what assistants say is a run's text.

        Example:
            async with client.runs.start("weather-agent") as run:
                async with run.message("user") as question:
                    await question.text("How is it in Oslo?")
                await run.text("Cold.")
            assert await client.runs.stream(run.id).text() == "Cold."
        """
        number = self._made(choose, "role", role, _ROLES) or Role.ROLE_ASSISTANT
        return AsyncMessageBlock(self, self._messages, MessageDraft(new_id(), number, model))

    def step(
        self,
        name: str,
        kind: str = "workflow",
        *,
        input: object = None,  # noqa: A002
        attempt: int = 1,
        step_id: str | None = None,
    ) -> AsyncStepBlock:
        """Open a step, for the length of a block. Kinds are the contract's: agent, tool, retrieval ...

        With the `step_id` of an earlier one and the next `attempt`, it replaces that one: readers forget what the
        earlier attempt did. Without, it is a step of its own.

        Example:
            async with client.runs.start("weather-agent") as run:
                try:
                    async with run.step("look") as look:
                        raise LookupError("no such city")
                except LookupError:
                    async with run.step("look", attempt=2, step_id=look.id) as look:
                        look.output = "cold"
            [step] = (await client.runs.stream(run.id).collect()).steps
            assert (step.attempt, step.output) == (2, "cold")
        """
        number = self._made(step_kind, kind) or StepKind.STEP_KIND_WORKFLOW
        return AsyncStepBlock(self, name, number, input, attempt, new_id() if step_id is None else step_id)

    def tool(self, name: str, arguments: object = None, *, tool_call_id: str | None = None) -> AsyncToolBlock:
        """Call a tool, for the length of a block. `tool_call_id` is the model's own, if it gave one.

        Example:
            async with client.runs.start("weather-agent") as run:
                async with run.tool("search_web", {"q": "Oslo"}, tool_call_id="call-1") as tool:
                    tool.result = ["-3 °C"]
            assert [call.id async for call in client.runs.stream(run.id).tool_calls] == ["call-1"]
        """
        return AsyncToolBlock(self, name, arguments, tool_call_id)

    async def progress(
        self,
        label: str = "",
        completed: int | None = None,
        total: int | None = None,
        *,
        iteration: int = 0,
        usage: Usage | None = None,
    ) -> None:
        """Tell how far the run is."""
        await self._publish_made(_payloads.progress, label, completed, total, iteration, usage)

    async def error(self, error: BaseException | str) -> None:
        """Tell what went wrong without ending the run."""
        described = self._made(_payloads.error_said if isinstance(error, str) else _payloads.error_of, error)
        await self._publish_made(_payloads.error_reported, described)

    async def state(self, value: object, name: str = "") -> None:
        """Publish the whole of a state that readers may rebuild."""
        await self._publish_made(_payloads.state_snapshot, name, value)

    async def custom(self, name: str, value: object = None) -> None:
        """Publish what no other method says, under a dotted name of your own."""
        await self._publish_made(_payloads.custom, name, value)

    async def artifact(
        self,
        name: str,
        content: bytes | None = None,
        *,
        uri: str | None = None,
        media_type: str = "application/octet-stream",
        artifact_id: str | None = None,
        append: bool = False,
    ) -> str:
        """Publish a file by its content or its URI; return its id, to replace it or `append` to it.

        Example:
            async with client.runs.start("weather-agent") as run:
                report = await run.artifact("report.txt", b"Oslo: ", media_type="text/plain")
                await run.artifact("report.txt", b"-3 C", artifact_id=report, append=True)
        """
        chosen = new_id() if artifact_id is None else artifact_id
        made = _payloads.artifact(chosen, name, media_type, content, uri, append)
        while (piece := self._made(next, made, None)) is not None:
            await self.publish(piece)
        return chosen

    async def publish(self, event: Event) -> None:
        """Queue an event, waiting for room if need be. The event is the producer's from then on."""
        if self._made(self._place, event):
            await self._publisher.publish(event)

    def _free_id(self, kind: Kind, given: object) -> str:
        """Return the id to use for what was given one: another one than `given` while that is taken."""
        allowed = to_id(given) or new_id()
        return allowed if not self._publisher.is_open(kind, allowed) else to_id(f"{given}~{new_id()}")

    async def _publish_made(self, make: Callable[..., Event], *arguments: object) -> None:
        """Publish what can be made of these arguments; what cannot be made is refused like what cannot be published."""
        event = self._made(make, *arguments)
        if event is not None:
            await self.publish(event)

    def _enqueue_made(self, make: Callable[..., Event], *arguments: object) -> None:
        """Queue the end of something that has begun, without waiting."""
        event = self._made(make, *arguments)
        if event is not None and self._place(event):
            self._publisher.enqueue(event, closing=True)

    def _place(self, event: Event) -> bool:
        event.step_id = event.step_id or _scope.current_step(self)
        return True

    def _made(self, make: Callable[..., _Made], *arguments: Any) -> _Made | None:
        """Return what can be made of these arguments. Raises what prevents it if the run is strict, else logs it."""
        try:
            return make(*arguments)
        except Exception as refused:
            self._publisher.refuse(refused)
            return None

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting. Raises ProducerOverloaded if the queue is full.

        Fills in the id and the time, and the step unless one is set.
        """
        if self._made(self._place, event):
            self._publisher.enqueue(event)

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything queued is durable; return whether it is.

        With `on_error="log"`, returns False after `timeout` seconds; without a timeout, as soon as the server is known
        to be out of reach. With "raise", raises ProducerOverloaded after `timeout` seconds.
        """
        return await self._publisher.flush(self._made(check_optional_seconds, "timeout", timeout))

    async def end_message(self) -> None:
        """Finish the message that this step's text has begun, if one is open: what comes next is another one."""
        self._messages.end_current()

    def begin(self) -> Self:
        """Begin the run without a block and without waiting; whoever begins it ends it with `end`.

        Queues the creation of the run and its RunStarted, and returns. A second call does nothing. With
        `on_error="log"` nothing raises: a run that cannot be recorded here is logged. With "raise", what the server
        refuses is raised by `flush` and later methods; a client of another event loop raises RuntimeError here.

        Example:
            run = client.runs.start("weather-agent").begin()
            run.output = {"answer": "cold"}
            run.end()
            assert await run.flush()
        """
        self._publisher.begin(self._started)
        _scope.has_started(self)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End the run without waiting: SUCCEEDED, or FAILED or CANCELLED as `error` says.

        Queues the open message's end and RunFinished with `output`, `usage` and `summary` as they are now, room or
        not; the client's own task sends them. Only the first call counts, and none raises. What is published
        afterwards is not recorded. Wait with `flush` where the end must be durable.
        """
        self._publisher.end(partial(self._last_events, error))

    async def __aenter__(self) -> Self:
        self.begin()
        await self._wait_created()
        self._scope = _scope.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _scope.leave(self._scope)
        self.end(error)
        await self._wait_ended(error)

    async def _wait_created(self) -> None:
        """Wait until the run exists, and end it if it cannot be created; where nothing raises, go on at once."""
        if self._raises:
            try:
                await self._publisher.delivery.wait_created(self._timeout)
            except BaseException as error:
                self.end(error)
                await self._publisher.delivery.wait_over(LAST_SECONDS, patient=False)
                raise

    async def _wait_ended(self, error: BaseException | None) -> None:
        """Wait until the run's end is durable, as long as the options say; `error` is what the run ended with."""
        try:
            await self._publisher.wait_ended()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and run {self.id} could not be finished: {_payloads.error_of(failure).message}")

    def _last_events(self, error: BaseException | None, refused: Exception | None) -> list[Event]:
        """Make the run's last events; nothing of what may have been refused if something was."""
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
