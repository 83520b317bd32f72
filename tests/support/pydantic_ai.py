"""Models for agents of pydantic-ai that say what a test has them say."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models import StreamedResponse
from pydantic_ai.models.function import AgentInfo, DeltaThinkingCalls, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

Chunk = str | DeltaToolCalls | DeltaThinkingCalls | BaseException


def turn_of(messages: Sequence[ModelMessage]) -> int:
    """Return how often the model has been asked before."""
    return sum(message.kind == "response" for message in messages)


def scripted(*turns: Sequence[Chunk], name: str = "scripted") -> FunctionModel:
    """Return a model that says these things, one turn a request; an exception among them is raised."""

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[Any]:
        for chunk in turns[turn_of(messages)]:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    return FunctionModel(stream_function=respond, model_name=name)


def call(index: int, name: str, arguments: str = "{}", call_id: str | None = None) -> DeltaToolCalls:
    """Return the chunk of a tool call."""
    given = f"{name}.{index}" if call_id is None else call_id
    return {index: DeltaToolCall(name=name, json_args=arguments, tool_call_id=given)}


def whole(*texts: str) -> FunctionModel:
    """Return a model that cannot stream, and says one of these texts per request."""

    def respond(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart(texts[turn_of(messages)])])

    return FunctionModel(respond, model_name="whole")


class RateLimited(WrapperModel):
    """A model whose provider refuses every request."""

    async def request(self, *_: Any, **__: Any) -> ModelResponse:
        raise ModelHTTPError(429, "scripted", {"error": "rate limited"})

    @asynccontextmanager
    async def request_stream(self, *_: Any, **__: Any) -> AsyncIterator[StreamedResponse]:
        raise ModelHTTPError(429, "scripted", {"error": "rate limited"})
        yield
