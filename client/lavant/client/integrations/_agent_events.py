"""Turns what an agent of pydantic-ai does into stream events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai import RunContext
from pydantic_ai.capabilities import (
    AbstractCapability,
    CapabilityOrdering,
    ValidatedToolArgs,
    WrapToolExecuteHandler,
)
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import ToolDefinition
from typing_extensions import override

from lavant.client import Usage, _json, _payloads
from lavant.client._async.concurrency import monotonic
from lavant.client.integrations._pydantic_ai_response import usage_of
from lavant.client.integrations._stream_event import (
    StreamEvent,
    agent_end_event,
    agent_start_event,
    error_event,
    llm_chunk_event,
    progress_event,
    tool_end_event,
    tool_start_event,
)


@dataclass(slots=True)
class _Execution:
    """How a tool fared: without an error, it returned the result."""

    result: Any = None
    error: BaseException | None = None
    seconds: float = 0.0


class AgentEvents(AbstractCapability[Any]):
    """Watches one run of an agent.

    Each TOOL_START is followed by one TOOL_END of the same `tool_call_id`, whatever becomes of the call.
    """

    def __init__(self, agent_name: str, emit: Callable[[StreamEvent], Awaitable[None]]) -> None:
        self._agent_name = agent_name
        self._emit = emit
        self._began = monotonic()
        self._usage = Usage()
        self._calls: dict[str, ToolCallPart] = {}
        self._executed: dict[str, _Execution] = {}

    def started(self, prompt: object) -> StreamEvent:
        """The first event."""
        return agent_start_event(self._agent_name, plain(prompt))

    def ended(self, error: BaseException | None = None) -> list[StreamEvent]:
        """The last events: of the calls that got no answer, of the error, and of the end."""
        events = [self._unanswered(call, failed=error is not None) for call in self._calls.values()]
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
        """Be the outermost: see the stream as it is delivered, after what others have rewritten in it."""
        return CapabilityOrdering(position="outermost")

    @override
    async def wrap_run_event_stream(
        self, ctx: RunContext[Any], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterable[AgentStreamEvent]:
        """Emit what the agent streams; it goes on when the event has been taken."""
        inner = cast("AsyncGenerator[AgentStreamEvent]", super().wrap_run_event_stream(ctx, stream=stream))
        async with aclosing(inner) as events:
            async for event in events:
                emitted = self._translate(event)
                if emitted is not None:
                    await self._emit(emitted)
                yield event

    @override
    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Emit how far the agent is."""
        self._usage += usage_of(response.usage)
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
        """Note how a tool fares: if another one raises, the agent does not tell any more."""
        executed = self._executed[call.tool_call_id] = _Execution()
        began = monotonic()
        try:
            executed.result = await handler(args)
        except BaseException as error:
            executed.error = error
            raise
        finally:
            executed.seconds = monotonic() - began
        return executed.result

    def _translate(self, event: AgentStreamEvent) -> StreamEvent | None:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                return llm_chunk_event(text) if text else None
            case FunctionToolCallEvent(part=call):
                self._calls[call.tool_call_id] = call
                return tool_start_event(call.tool_name, plain(call.args_as_dict()), tool_call_id=call.tool_call_id)
            case FunctionToolResultEvent(part=part):
                return self._answered(part)
        return None

    def _answered(self, part: ToolReturnPart) -> StreamEvent:
        self._calls.pop(part.tool_call_id, None)
        executed = self._executed.pop(part.tool_call_id, _Execution())
        well = part.outcome == "success"
        return tool_end_event(
            part.tool_name,
            result=plain(part.content) if well else None,
            error=None if well else part.model_response_str(wrap_if_error=False),
            duration_seconds=executed.seconds,
            tool_call_id=part.tool_call_id,
            outcome=part.outcome,
        )

    def _unanswered(self, call: ToolCallPart, *, failed: bool) -> StreamEvent:
        executed = self._executed.get(call.tool_call_id, _Execution(error=asyncio.CancelledError()))
        error: str | None = None
        if not failed:
            outcome = "deferred"
        elif executed.error is None:
            outcome = "success"
        elif isinstance(executed.error, asyncio.CancelledError):
            outcome, error = "cancelled", "cancelled"
        else:
            outcome, error = "failed", _payloads.error_of(executed.error).message
        return tool_end_event(
            call.tool_name,
            result=plain(executed.result),
            error=error,
            duration_seconds=executed.seconds,
            tool_call_id=call.tool_call_id,
            outcome=outcome,
        )

    def _tokens(self) -> int:
        return self._usage.input_tokens + self._usage.output_tokens


def plain(value: object) -> Any:
    """Return a value as JSON says it; what JSON cannot say as its repr."""
    try:
        return _json.decode(_json.encode(value))
    except ValueError:
        return repr(value)
