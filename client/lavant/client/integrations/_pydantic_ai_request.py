"""A request to a model: one step with one message, begun again where the model is asked once more."""

from pydantic_ai.messages import ModelResponse, ModelResponseStreamEvent

from lavant.client import AsyncRunProducer, Usage
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._pydantic_ai_messages import answered
from lavant.client.integrations._pydantic_ai_response import ResponseRecorder, usage_of
from lavant.client.integrations._pydantic_ai_step import NestedStep
from lavant.client.integrations._tool_call_ids import ToolCallIds


class RequestRecorder:
    """Records what a model says, and how the request ends. Only queues, never waits, never raises.

    A request that failed may be followed by another attempt: of a fallback's next model, or of whoever recovers
    from the error. What each attempt used is added to the run's usage, once.
    """

    def __init__(self, run: AsyncRunProducer, step: NestedStep, model: str, calls: ToolCallIds, guard: Guard) -> None:
        self._run = run
        self._step = step
        self._model = model
        self._calls = calls
        self._guard = guard
        self._noted: Usage | None = None
        self._response: ResponseRecorder | None = None
        self._begin()

    async def event(self, event: ModelResponseStreamEvent) -> None:
        """The model says more."""
        self.add(event)

    def add(self, event: ModelResponseStreamEvent) -> None:
        """The model says more."""
        if self._response is None:
            self._begin_again()
        if self._response is not None:
            self._response.add(event)

    def responded(self, response: ModelResponse) -> None:
        """The model has said all of a response, or what there is of it. A suspended response has several."""
        with self._guard:
            usage = usage_of(response.usage)
            self._noted = usage if self._noted is None else self._noted + usage

    def failed(self, error: Exception) -> None:
        """The request failed: for good, unless more is reported."""
        if self._response is not None:
            self._step.failure = error
            self._finish(None, self._noted)

    def finish(self, response: ModelResponse) -> None:
        """The agent has the response."""
        if self._response is None:
            self._begin_again()
        with self._guard:
            self._step.output = answered(response)
        usage = self._noted
        with self._guard:
            usage = usage_of(response.usage)
        self._finish(response, usage)

    def abort(self, _error: BaseException) -> None:
        """The agent has no response: the request was cancelled, or its response was refused."""
        if self._response is not None:
            self._finish(None, self._noted)

    def _begin(self) -> None:
        with self._guard:
            self._response = ResponseRecorder(self._run, self._step.id, self._model, self._calls, self._guard)

    def _begin_again(self) -> None:
        if self._step.failure is not None:
            self._step.begin_again()
        self._begin()

    def _finish(self, response: ModelResponse | None, usage: Usage | None) -> None:
        recorder, self._response, self._noted = self._response, None, None
        self._step.usage = usage
        if usage is not None:
            self._run.usage = usage + (self._run.usage or Usage())
        if recorder is not None:
            with self._guard:
                recorder.finish(response, usage)
