"""The model of a recorded agent: reports what it says while it says it, and how a request fails."""

import copy
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic_ai import RunContext
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from typing_extensions import override

# What a model raises that cannot stream after all: nothing has been requested by then.
_CANNOT_STREAM = (NotImplementedError, UserError, AssertionError)


class Listener(Protocol):
    """Hears what happens to a request. Never raises."""

    async def event(self, event: ModelResponseStreamEvent) -> None:
        """The model says more."""
        ...

    def responded(self, response: ModelResponse) -> None:
        """The model has said what there is of its response: all, or what came before it failed."""
        ...

    def failed(self, error: Exception) -> None:
        """The request failed. The model may be asked once more, or another one."""
        ...


class _Borrowed(WrapperModel):
    """A wrapper around a model that belongs to somebody else, who enters and exits it."""

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        pass


class RecordedModel(_Borrowed):
    """A model that is asked as the agent asks it, and that streams inside where the agent does not ask for a stream.

    So the agent's own loop stays as it is without a recorder: a streamed loop would take recovery from errors, and
    models that cannot stream, away from it. Such models are asked for the whole response.
    """

    def __init__(self, wrapped: Model, listeners: tuple[Listener, ...], run_context: RunContext[Any]) -> None:
        super().__init__(wrapped)
        self._listeners = listeners
        self._run_context = run_context

    def with_listener(self, listener: Listener) -> "RecordedModel":
        """Return it with one more listener, which hears all first: two layers would hear nothing of each other."""
        return RecordedModel(self.wrapped, (listener, *self._listeners), self._run_context)

    @override
    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        try:
            response = None
            if can_stream(self.wrapped) and not _is_background(messages, model_settings):
                response = await self._streamed(messages, model_settings, model_request_parameters)
            if response is None:
                response = await self.wrapped.request(messages, model_settings, model_request_parameters)
                self._responded(response)
        except Exception as error:
            self._failed(error)
            raise
        return response

    @override
    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        # The events of a streamed loop reach the capability by themselves.
        try:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as streamed:
                try:
                    yield streamed
                finally:
                    self._note(streamed)
        except Exception as error:
            self._failed(error)
            raise

    async def _streamed(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse | None:
        """Return the response, reported while it came; None if the model cannot stream after all."""
        async with AsyncExitStack() as stack:
            try:
                streamed = await stack.enter_async_context(
                    self.wrapped.request_stream(messages, model_settings, model_request_parameters, self._run_context)
                )
            except _CANNOT_STREAM:
                return None
            try:
                async for event in streamed:
                    for listener in self._listeners:
                        await listener.event(event)
            finally:
                self._note(streamed)
            return streamed.get()

    def _note(self, streamed: StreamedResponse) -> None:
        with suppress(Exception):
            self._responded(streamed.get())

    def _responded(self, response: ModelResponse) -> None:
        for listener in self._listeners:
            listener.responded(response)

    def _failed(self, error: Exception) -> None:
        for listener in self._listeners:
            listener.failed(error)


def recorded_model(model: Model, listener: Listener, run_context: RunContext[Any]) -> Model:
    """Put a recorder around a model; around each of a FallbackModel's, which falls back when one fails half-way."""
    if isinstance(model, RecordedModel):
        return model.with_listener(listener)
    inner = model.wrapped if isinstance(model, _Borrowed) else model
    if isinstance(inner, FallbackModel):
        fallback = copy.copy(inner)
        fallback.models = [recorded_model(each, listener, run_context) for each in inner.models]
        return _Borrowed(fallback)
    return RecordedModel(model, (listener,), run_context)


def can_stream(model: Model) -> bool:
    """Return whether a streamed request returns what a whole one does.

    Not if only the whole one is a class's own, and not through a wrapper around a FallbackModel: while it streams,
    that model does not fall back once it has begun to speak.
    """
    if _defined_at(type(model), "request") < _defined_at(type(model), "request_stream"):
        return False
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    if isinstance(model, FallbackModel):
        return False
    return not isinstance(model, WrapperModel) or can_stream(model.wrapped)


def _defined_at(kind: type[Model], method: str) -> int:
    return next(index for index, base in enumerate(kind.__mro__) if method in vars(base))


def _is_background(messages: Sequence[ModelMessage], model_settings: ModelSettings | None) -> bool:
    """Return whether the provider works on without a connection, and is asked for the state of the response."""
    last = messages[-1] if messages else None
    is_resumed = isinstance(last, ModelResponse) and last.state == "suspended"
    return is_resumed or bool((model_settings or {}).get("openai_background"))
