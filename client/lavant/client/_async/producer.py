"""Publishing a run's events."""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from lavant.client import _payloads, _scope
from lavant.client._arguments import choose, step_kind
from lavant.client._async.blocks import AsyncMessageBlock, AsyncStepBlock, AsyncToolBlock
from lavant.client._async.concurrency import monotonic
from lavant.client._async.connection import Connection
from lavant.client._async.messages import Messages
from lavant.client._async.publisher import Publisher
from lavant.client._errors import InvalidField, LavantError, ProducerOverloaded, RunCancelled
from lavant.client._fitting import CHANGED
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft
from lavant.client._models import ErrorInfo, EvaluationSummary, Receipt, RunResult, Usage
from lavant.client._options import OnError, ProducerOptions
from lavant.client._outbox import Kind
from lavant.client._states import RunState
from lavant.contract.text import to_id
from lavant.v1 import run_pb2
from lavant.v1.event_pb2 import Event, Role
from lavant.v1.run_pb2 import RUN_STATE_FAILED, Error
from lavant.v1.run_service_pb2 import CreateRunRequest

_ROLES = {name.removeprefix("ROLE_").lower(): number for name, number in Role.items() if number}


class AsyncRunProducer:
    """A run that this process executes: `async with client.runs.start(...) as run`.

    Entering creates the run and publishes RunStarted. Leaving publishes RunFinished and waits until
    all is durable: SUCCEEDED with `output`; FAILED with the error if the block raised, or if `output` or
    `usage` cannot be published; CANCELLED if the block was cancelled. Methods queue an event and return;
    they wait only while the queue is full, and raise ProducerOverloaded after `block_timeout`. Once the
    server has refused an event for good, they raise what it said. An event is stored exactly once, also
    over reconnects, but a process that dies takes with it what had no receipt yet. For one event loop;
    not thread-safe.

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
        self.summary: EvaluationSummary | None = None
        self._started = started
        self._publisher = Publisher(connection, create, options, on_error)
        self._messages = Messages(self, self._publisher, started.run_started.model)
        self._close_timeout = options.close_timeout
        self._raises = on_error == "raise"
        self._began = 0.0

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
        return AsyncMessageBlock(self, self._messages, MessageDraft(new_id(), choose("role", role, _ROLES), model))

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
        return AsyncStepBlock(self, name, step_kind(kind), input, attempt, step_id or new_id())

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
        described = _payloads.error_said(error) if isinstance(error, str) else _payloads.error_of(error)
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
        chosen = artifact_id or new_id()
        for piece in _payloads.artifact(chosen, name, media_type, content, uri, append):
            await self.publish(piece)
        return chosen

    async def publish(self, event: Event) -> None:
        """Queue an event, waiting for room if need be. The event is the producer's from then on."""
        event.step_id = event.step_id or _scope.current_step(self)
        await self._publisher.publish(event)

    def _free_id(self, kind: Kind, given: object) -> str:
        """Return the id to use for what was given one: another one than `given` while that is taken."""
        allowed = to_id(given) or new_id()
        return allowed if not self._publisher.is_open(kind, allowed) else to_id(f"{given}~{new_id()}")

    async def _publish_made(self, make: Callable[..., Event], *arguments: object) -> None:
        """Publish what can be made of these arguments; what cannot be made is refused like what cannot be published."""
        try:
            event = make(*arguments)
        except (TypeError, ValueError) as refused:
            self._publisher.refuse(refused)
        else:
            await self.publish(event)

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting. Raises ProducerOverloaded if the queue is full.

        Fills in the id and the time, and the step unless one is set.
        """
        event.step_id = event.step_id or _scope.current_step(self)
        self._publisher.enqueue(event)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything queued is durable. Raises ProducerOverloaded after `timeout` seconds."""
        await self._publisher.flush(timeout)

    async def end_message(self) -> None:
        """Finish the message that this step's text has begun, if one is open: what comes next is another one."""
        await self._messages.end_current()

    async def __aenter__(self) -> Self:
        await self._publisher.open()
        self._began = monotonic()
        try:
            self.enqueue(self._started)
        except InvalidField as refused:
            await self._end_unstarted(refused)
            message = f"run {self.id} has ended: its input cannot be published: {refused}"
            raise InvalidField(message, violations=refused.violations) from None
        except LavantError:
            await self._publisher.close()
            raise
        self._scope = _scope.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _scope.leave(self._scope)
        try:
            await self._finish(error)
        except Exception as failure:
            if error is None or not self._raises:
                self._publisher.refuse(failure)
            else:
                note = _payloads.error_of(failure).message
                error.add_note(f"and run {self.id} could not be finished: {note}")
        finally:
            await self._publisher.close()

    async def _finish(self, error: BaseException | None) -> None:
        try:
            await self.end_message()
        finally:
            if self._publisher.lost is None:
                await self._finish_whole(error)
            else:
                await self._finish_as_failed(self._publisher.lost, "not recorded further: ")

    async def _finish_whole(self, error: BaseException | None) -> None:
        described = _payloads.error_of(error) if error else None
        if described is not None and self.cancelled:
            described.message = self.cancel_reason or described.message
        try:
            await self._publish_finish(_payloads.state_of(error), described, self.output, self.usage)
        except ProducerOverloaded:
            raise
        except Exception as refused:  # What cannot be published are the output, the usage, or what came before.
            if described is None:
                await self._finish_as_failed(refused)
            await self._publish_last(_payloads.state_of(error), described)
            raise

    async def _finish_as_failed(self, failure: Exception, prefix: str = "") -> None:
        described = _payloads.error_of(failure)
        described.message = f"{prefix}{described.message}"
        try:
            await self._publish_last(RUN_STATE_FAILED, described)
        except Exception as second:
            if second is not failure:
                failure.add_note(f"and run {self.id} could not be finished: {_payloads.error_of(second).message}")
        raise failure

    async def _publish_last(self, state: "run_pb2.RunState.ValueType", error: Error | None) -> None:
        """End the run even if events before its end were refused: also the first one then, if it was among them."""
        begin = [self._started] if await self._publisher.give_up_refused() else []
        finished = _payloads.run_finished(state, None, error, None, monotonic() - self._began)
        await self._publisher.finish(self._close_timeout, *begin, finished)

    async def _publish_finish(
        self,
        state: "run_pb2.RunState.ValueType",
        error: Error | None,
        output: object = None,
        usage: Usage | None = None,
    ) -> None:
        finished = _payloads.run_finished(state, output, error, usage, monotonic() - self._began)
        if self.summary is not None:
            finished.run_finished.evaluation.CopyFrom(self.summary.to_proto())
        await self._publisher.finish(self._close_timeout, finished)

    async def _end_unstarted(self, refused: InvalidField) -> None:
        """End a run whose RunStarted was refused, rather than leave it queued for ever."""
        try:
            self._started.run_started.ClearField("input_json")
            self._started.attributes.pop(CHANGED, None)
            with suppress(LavantError):
                self.enqueue(self._started)
                described = _payloads.error_of(refused)
                finished = _payloads.run_finished(RUN_STATE_FAILED, None, described, None, 0.0)
                await self._publisher.finish(self._close_timeout, finished)
        finally:
            await self._publisher.close()
