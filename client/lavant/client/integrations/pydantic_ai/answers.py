"""A model's answer and conversation as pydantic-ai has them; the request that an answer belongs to."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

from lavant.client import AsyncRunProducer, Usage
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.pydantic_ai.step import NestedStep
from lavant.client.integrations.recording.messages import AnswerRecorder, MessageRecorder, ToolCallIds
from lavant.client.integrations.recording.reading import count, field

_ROLES = {"system-prompt": "system", "user-prompt": "user", "text": "assistant", "thinking": "assistant"}
_CALLS = frozenset({"tool-call", "builtin-tool-call"})
_RETURNS = frozenset({"tool-return", "builtin-tool-return", "retry-prompt"})


class RequestRecorder:
    """Records a model's answer, and how the request ends. Only queues, never waits, never raises.

    A request that failed may be followed by another attempt: of a fallback's next model, or of whoever recovers
    from the error. What each attempt used is added to the run's usage, once. After `abort`, nothing is recorded.
    """

    def __init__(self, run: AsyncRunProducer, step: NestedStep, model: str, ids: ToolCallIds, guard: Guard) -> None:
        self._run = run
        self._step = step
        self._model = model
        self._ids = ids
        self._guard = guard
        self._used: Usage | None = None
        self._answer: AnswerRecorder | None = None
        self._is_over = False
        self._start()

    async def event(self, event: ModelResponseStreamEvent) -> None:
        """Record more of the answer."""
        self.add(event)

    def add(self, event: ModelResponseStreamEvent) -> None:
        """Record more of the answer."""
        if (answer := self._open_answer()) is None:
            return
        with self._guard:
            match event:
                case PartStartEvent(index=index, part=part):
                    _add_part(answer, index, part)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    answer.add("text", text)
                case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)):
                    answer.add("reasoning", text)
                case PartDeltaEvent(index=index, delta=ToolCallPartDelta(args_delta=arguments)):
                    if answer.has_call(index):
                        answer.add_arguments(index, None, None, arguments)

    def responded(self, response: ModelResponse) -> None:
        """Note the usage of a response, or of what there is of it. A suspended response has several."""
        with self._guard:
            usage = usage_of(response.usage)
            self._used = usage if self._used is None else self._used + usage

    def failed(self, error: Exception) -> None:
        """Record that the request failed: for good, unless more is reported."""
        if self._answer is not None:
            self._step.failure = error
            self._finish(None, self._used)

    def finish(self, response: ModelResponse) -> None:
        """Record the response that the agent gets."""
        if self._open_answer() is None:
            return
        with self._guard:
            self._step.output = list(describe(response))
        usage = self._used
        with self._guard:
            usage = usage_of(response.usage)
        self._finish(response, usage)

    def abort(self) -> Usage | None:
        """Record that the agent gets no response: the request was cancelled, or its response was refused."""
        self._is_over = True
        if self._answer is not None:
            self._finish(None, self._used)
        return self._step.usage

    def _open_answer(self) -> AnswerRecorder | None:
        if self._answer is None and not self._is_over:
            self._step.restart_if_failed()
            self._start()
        return self._answer

    def _start(self) -> None:
        with self._guard:
            message = MessageRecorder(self._run, self._step.id, self._model)
            self._answer = AnswerRecorder(message, self._ids, self._guard)

    def _finish(self, response: ModelResponse | None, usage: Usage | None) -> None:
        answer, self._answer, self._used = self._answer, None, None
        self._step.usage = usage
        if usage is not None:
            self._run.usage = usage + (self._run.usage or Usage())
        if answer is None:
            return
        if response is None:
            answer.finish(usage=usage)
            return
        with self._guard:
            for index, part in enumerate(response.parts if answer.is_empty else ()):
                with self._guard:
                    _add_part(answer, index, part)
        streamed = {call.original_id for call in answer.calls}
        calls = (
            (part.tool_call_id, part.tool_name, part.args)
            for part in response.parts
            # What others have made of the response after it was streamed is not what the model answered.
            if isinstance(part, ToolCallPart) and part.tool_call_id in streamed
        )
        answer.finish((), calls, response.finish_reason or "", usage)
        for call in answer.calls:
            self._ids.expect(call.original_id, call.id)


def usage_of(usage: object) -> Usage:
    """Translate a request's usage; a value that is no number is left out."""
    cost = field(usage, "cost")
    return Usage(
        input_tokens=count(field(usage, "input_tokens")),
        output_tokens=count(field(usage, "output_tokens")),
        cache_read_input_tokens=count(field(usage, "cache_read_tokens")),
        cache_creation_input_tokens=count(field(usage, "cache_write_tokens")),
        reasoning_output_tokens=count(field(usage, "output_reasoning_tokens")),
        requests=1,
        cost_usd=float(cost) if isinstance(cost, int | float | Decimal) else None,
    )


def describe(message: ModelMessage) -> Iterator[dict[str, Any]]:
    """Return the entries of a message in a conversation: `{"role": "user", "content": ...}`, one per part."""
    for part in message.parts:
        kind = field(part, "part_kind")
        name, content, call_id = field(part, "tool_name"), field(part, "content"), field(part, "tool_call_id")
        if kind in _CALLS:
            yield {"role": "assistant", "tool_call": name, "arguments": field(part, "args"), "tool_call_id": call_id}
        elif kind in _RETURNS:
            yield {"role": "tool", "tool_name": name, "content": content, "tool_call_id": call_id}
        elif isinstance(kind, str) and kind in _ROLES:
            yield {"role": _ROLES[kind], "reasoning" if kind == "thinking" else "content": content}
        else:
            yield {"role": "other", "kind": kind, "content": part}


def _add_part(answer: AnswerRecorder, index: int, part: object) -> None:
    if isinstance(part, TextPart):
        answer.add("text", part.content)
    elif isinstance(part, ThinkingPart):
        answer.add("reasoning", part.content)
    elif isinstance(part, ToolCallPart):
        answer.add_arguments(index, part.tool_call_id, part.tool_name, part.args)
