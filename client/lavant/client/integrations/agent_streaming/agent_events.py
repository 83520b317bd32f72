"""The stream events of an agent of pydantic-ai."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai import AgentRunResult, RunContext
from pydantic_ai.capabilities import (
    AbstractCapability,
    CapabilityOrdering,
    ValidatedToolArgs,
    WrapRunHandler,
    WrapToolExecuteHandler,
)
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.tools import ToolDefinition
from typing_extensions import override

from lavant.client import AsyncRunProducer, Usage
from lavant.client._async.concurrency import monotonic
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.guard import Guard
from lavant.client._wire import json_text as _json
from lavant.client.integrations.agent_streaming.stream_event import (
    StreamEvent,
    agent_end_event,
    agent_start_event,
    error_event,
    llm_chunk_event,
    progress_event,
    tool_end_event,
    tool_start_event,
)
from lavant.client.integrations.pydantic_ai import _leader_of
from lavant.client.integrations.pydantic_ai.answers import usage_of
from lavant.client.integrations.pydantic_ai.model import recorded_model
from lavant.contract.text import to_text


@dataclass(slots=True)
class _Call:
    """A tool call that was announced and not answered yet; once its tool ran without an error, it has a result."""

    part: ToolCallPart
    is_executed: bool = False
    result: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


class AgentEvents(AbstractCapability[Any]):
    """Emits the stream events of one run of an agent, and changes nothing of it: see LavantCapability.

    Each TOOL_START is followed by one TOOL_END of the same `tool_call_id`, whatever the outcome of the call.
    """

    def __init__(
        self,
        agent_name: str,
        emit: Callable[[StreamEvent], Awaitable[None]],
        recorded: Callable[[AsyncRunProducer], None],
    ) -> None:
        self._agent_name = agent_name
        self._emit = emit
        self._recorded = recorded
        self._guard = Guard("log", f"the stream of the agent {agent_name}")
        self._began = monotonic()
        self._usage = Usage()
        self._context: RunContext[Any] | None = None
        self._has_spoken = False
        # In the order of their announcement: a provider may use one id twice.
        self._calls: list[_Call] = []

    def started(self, prompt: object) -> StreamEvent:
        """Return the first event."""
        return agent_start_event(self._agent_name, plain(prompt))

    def ended(self, error: BaseException | None = None) -> list[StreamEvent]:
        """Return the last events: of the calls that have no answer, of the error, and of the end."""
        events = [self._unanswered(call, failed=error is not None) for call in self._calls]
        if error is not None:
            events.append(error_event(_payloads.error_of(error).message, type(error).__name__))
        end = agent_end_event(
            self._agent_name,
            success=error is None,
            total_iterations=self._usage.requests,
            total_tokens=self._tokens(),
            total_cost_usd=self._usage.cost_usd,
            duration_seconds=monotonic() - self._began,
        )
        return [*events, end]

    @override
    def get_ordering(self) -> CapabilityOrdering:
        """Return the position outermost: the stream is emitted as it is delivered, after others have rewritten it."""
        return CapabilityOrdering(position="outermost")

    @override
    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Note the run that the agent is recorded in, if it is: its capability is around this one."""
        with self._guard:
            leader = _leader_of(ctx)
            if leader is not None and leader.run is not None:
                self._recorded(leader.run)
        return await handler()

    @property
    @override
    def has_wrap_run_event_stream(self) -> bool:
        """Whether the agent's loop has to stream for this capability: it listens to the model instead."""
        return False

    @override
    async def wrap_run_event_stream(
        self, ctx: RunContext[Any], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterable[AgentStreamEvent]:
        """Emit what the agent streams; it continues after the event was accepted."""
        inner = cast("AsyncGenerator[AgentStreamEvent]", super().wrap_run_event_stream(ctx, stream=stream))
        async with aclosing(inner) as events:
            async for event in events:
                await self._emit_translated(event)
                yield event

    @override
    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Note the context of the next request."""
        self._context = ctx
        self._has_spoken = False
        return request_context

    @override
    def get_wrapper_model(self, model: Model) -> Model | None:
        """Return the model, whose answers are emitted while they stream."""
        return recorded_model(model, self, self._context) if self._context else None

    async def event(self, event: ModelResponseStreamEvent) -> None:
        """Emit more of an answer."""
        await self._emit_translated(event)

    def responded(self, response: ModelResponse) -> None:
        """Do nothing: `after_model_request` follows."""

    def failed(self, error: Exception) -> None:
        """Do nothing: the agent raises the error."""

    @override
    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Emit the progress of the agent, and the text of a model that cannot stream."""
        text = ""
        with self._guard:
            self._usage += usage_of(response.usage)
            # A loop that streams delivers the text itself, as others may rewrite it.
            text = "" if self._has_spoken or request_context.streaming else _text_of(response)
        if text:
            await self._emit(llm_chunk_event(text))
        await self._emit(progress_event(self._usage.requests, self._tokens(), self._usage.cost_usd))
        return response

    @override
    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: ValidatedToolArgs,
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Note the outcome of a tool: if another one raises, the agent does not report it any more."""
        executed = self._next(call, is_executed=False) or _Call(call)
        executed.is_executed = True
        began = monotonic()
        try:
            executed.result = await handler(args)
        except BaseException as error:
            executed.error = error
            raise
        finally:
            executed.seconds = monotonic() - began
        return executed.result

    async def _emit_translated(self, event: object) -> None:
        emitted: StreamEvent | None = None
        with self._guard:
            emitted = self._translate(event)
        if emitted is not None:
            await self._emit(emitted)

    def _translate(self, event: object) -> StreamEvent | None:
        match event:
            case (
                PartStartEvent(part=TextPart(content=str(text)))
                | PartDeltaEvent(delta=TextPartDelta(content_delta=str(text)))
            ):
                self._has_spoken = self._has_spoken or bool(text)
                return llm_chunk_event(text) if text else None
            case FunctionToolCallEvent(part=call):
                self._calls.append(_Call(call))
                return tool_start_event(call.tool_name, _arguments(call), tool_call_id=call.tool_call_id)
            case FunctionToolResultEvent(part=part):
                return self._answered(part)
        return None

    def _answered(self, part: ToolReturnPart) -> StreamEvent:
        # Of calls with the same ID, the one that was executed first is answered first.
        call = self._next(part, is_executed=True) or self._next(part, is_executed=False)
        if call is not None:
            self._calls.remove(call)
        well = part.outcome == "success"
        return tool_end_event(
            part.tool_name,
            result=plain(part.content) if well else None,
            error=None if well else _error_text(part),
            duration_seconds=call.seconds if call else 0.0,
            tool_call_id=part.tool_call_id,
            outcome=part.outcome,
        )

    def _unanswered(self, call: _Call, *, failed: bool) -> StreamEvent:
        error: str | None = None
        if not failed:
            outcome = "deferred"
        elif call.is_executed and call.error is None:
            outcome = "success"
        elif call.error is None or isinstance(call.error, asyncio.CancelledError):
            outcome, error = "cancelled", "cancelled"
        else:
            outcome, error = "failed", _payloads.error_of(call.error).message
        return tool_end_event(
            call.part.tool_name,
            result=plain(call.result),
            error=error,
            duration_seconds=call.seconds,
            tool_call_id=call.part.tool_call_id,
            outcome=outcome,
        )

    def _next(self, part: ToolCallPart | ToolReturnPart, *, is_executed: bool) -> _Call | None:
        wanted = to_text(part.tool_call_id)
        return next(
            (call for call in self._calls if call.is_executed is is_executed and _id_of(call) == wanted),
            None,
        )

    def _tokens(self) -> int:
        return self._usage.input_tokens + self._usage.output_tokens


def plain(value: object) -> Any:
    """Return a value as JSON values; what JSON cannot express is described."""
    try:
        return _json.decode(_json.encode(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _id_of(call: _Call) -> str:
    return to_text(call.part.tool_call_id)


def _arguments(call: ToolCallPart) -> Any:
    try:
        return plain(call.args_as_dict())
    except Exception:  # A model may write what no parser takes, such as 20,000 brackets.
        return {"INVALID_JSON": plain(call.args)}


def _error_text(part: ToolReturnPart) -> str:
    try:
        return part.model_response_str(wrap_if_error=False)
    except Exception:
        return to_text(part.content)


def _text_of(response: ModelResponse) -> str:
    return "".join(part.content for part in response.parts if isinstance(part, TextPart) and part.content)
