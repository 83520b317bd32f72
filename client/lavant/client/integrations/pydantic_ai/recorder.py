"""One agent of pydantic-ai as events of a run."""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import ValidatedToolArgs, WrapModelRequestHandler, WrapToolExecuteHandler
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    ToolCallEvent,
    ToolCallPart,
    ToolResultEvent,
)
from pydantic_ai.models import Model, ModelRequestContext

from lavant.client import AsyncRunProducer
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.guard import Guard
from lavant.client._wire import json_text as _json
from lavant.client.integrations.pydantic_ai.answers import RequestRecorder, describe
from lavant.client.integrations.pydantic_ai.model import recorded_model
from lavant.client.integrations.pydantic_ai.step import NestedStep, nested_step
from lavant.client.integrations.recording.messages import ToolCallIds
from lavant.client.integrations.recording.reading import conversation_json
from lavant.contract.text import to_name, to_text
from lavant.v1.event_pb2 import ToolCallOutcome
from lavant.v1.run_pb2 import Error

PART_EVENTS = (PartStartEvent, PartDeltaEvent, PartEndEvent)
TOOL_EVENTS = (ToolCallEvent, ToolResultEvent)

_OUTCOMES = {
    "success": ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED,
    "denied": ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED,
    "retried": ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED,
}


class AgentRecorder:
    """Records an agent's requests to its model, its tool calls and its states, within the step that is open now.

    What cannot be recorded of them is lost alone: see Guard.
    """

    def __init__(self, run: AsyncRunProducer, guard: Guard) -> None:
        self.run = run
        self._guard = guard
        self._step_id = _scope.current_step(run)
        self._call_ids = ToolCallIds(self._step_id)
        self._request: RequestRecorder | None = None
        self._context: RunContext[Any] | None = None
        self._open: dict[NestedStep, None] = {}
        # Calls that were announced, and not executed yet.
        self._announced: dict[str, list[ToolCallPart]] = {}

    async def model_request(
        self, ctx: RunContext[Any], request: ModelRequestContext, handler: WrapModelRequestHandler
    ) -> ModelResponse:
        """Record a request to the model: a step with one message."""
        model, conversation = "model", "[]"
        with self._guard:
            model = to_name(request.model.model_name, default="model")
            self._call_ids.forget_expected()
        with self._guard:
            instructions = getattr(request.messages[-1], "instructions", None) if request.messages else None
            conversation = conversation_json(
                request.messages, describe, instructions if isinstance(instructions, str) else None
            )

        def start(step: NestedStep) -> None:
            step.steps.start(
                step,
                model,
                "model_request",
                parent=step.parent,
                parent_id=step.parent_id,
                input_json=conversation,
            )

        async with nested_step(self.run, self._guard, start) as step:
            recorder = self._request = RequestRecorder(self.run, step, model, self._call_ids, self._guard)
            self._context = ctx
            with self._guard:
                step.steps.on_cut(step, lambda: (recorder.abort(), step.failure))
            try:
                with self._opened(step):
                    response = await handler(request)
            except BaseException:
                recorder.abort()
                raise
            finally:
                self._request = None
            recorder.finish(response)
        with self._guard:
            self.run.enqueue(_payloads.progress("", None, None, ctx.run_step, self.run.usage))
        return response

    def wrapped_model(self, model: Model) -> Model | None:
        """Return the model of the request that is made now, recorded."""
        if self._request is None or self._context is None:
            return None
        return recorded_model(model, self._request, self._context)

    async def tool(self, call: ToolCallPart, args: ValidatedToolArgs, handler: WrapToolExecuteHandler) -> Any:
        """Record a tool that executes a call: a step with the call in it."""

        def start(step: NestedStep) -> None:
            self._take_announced(call.tool_call_id)
            step.steps.start_tool(
                step,
                to_name(call.tool_name, default="tool"),
                args,
                call_id=self._call_ids.take(call.tool_call_id),
                original_id=call.tool_call_id,
                parent=step.parent,
                parent_id=step.parent_id,
            )

        async with nested_step(self.run, self._guard, start) as step:
            with self._opened(step):
                step.output = await handler(args)
            return step.output

    def event(self, event: AgentStreamEvent) -> None:
        """Record what the agent streams."""
        if isinstance(event, PART_EVENTS):
            if self._request is not None:
                self._request.add(event)
        elif isinstance(event, ToolCallEvent):
            self._announced.setdefault(to_text(event.part.tool_call_id), []).append(event.part)
        elif isinstance(event, ToolResultEvent):
            self._settle(event)

    def state(self, name: str, value: object) -> None:
        """Record the whole of a state."""
        with self._guard:
            self.run.enqueue(_payloads.state_snapshot(name, value))

    def cut(self) -> None:
        """Finish what is still open: the agent failed or was cancelled, and its tasks end only afterwards."""
        for step in list(self._open):
            step.cut(CancelledError())

    @contextmanager
    def _opened(self, step: NestedStep) -> Iterator[None]:
        self._open[step] = None
        try:
            yield
        finally:
            self._open.pop(step, None)

    def _take_announced(self, call_id: object) -> ToolCallPart | None:
        calls = self._announced.get(to_text(call_id))
        return calls.pop(0) if calls else None

    def _settle(self, event: ToolResultEvent) -> None:
        """Record a call that was answered without running the tool: malformed arguments, a final result."""
        call, part = self._take_announced(event.part.tool_call_id), event.part
        if call is None:
            return
        call_id = self._call_ids.take(call.tool_call_id)
        described = _payloads.tool_call(call_id, call.tool_name, call.args, original_id=call.tool_call_id)
        outcome = _OUTCOMES.get(part.outcome, ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED)
        has_failed = outcome != ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        error = Error(message=_text(part.content), type=to_text(part.outcome)) if has_failed else None
        started = _payloads.tool_call_started(described)
        for made in (started, _payloads.tool_call_finished(described, outcome, part.content, error)):
            made.step_id = self._step_id
            self.run.enqueue(made)


def _text(content: object) -> str:
    text = to_text(content) if isinstance(content, str) else _json.encode(content)
    return text[: _payloads.MAX_ERROR_MESSAGE]
