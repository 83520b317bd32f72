"""The callback handlers of applications, for LangChain's blocking and asynchronous calls."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk, LLMResult

from lavant.client import AsyncClient, Client, ProducerOptions
from lavant.client.integrations.langchain.invocations import AsyncInvocations, BlockingInvocations
from lavant.client.integrations.langchain.recorder import ComponentStart
from lavant.client.integrations.recording.runs import ClientT, RunOptions
from lavant.client.options import OnError

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData
    from tenacity import RetryCallState


class _Callbacks(Generic[ClientT]):
    """The callbacks of both handlers; a start or an end returns what the handler's invocations return."""

    _kind: "ClassVar[type[AsyncInvocations] | type[BlockingInvocations]]"

    def __init__(
        self,
        client: ClientT,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> None:
        run_options = RunOptions(labels=labels, producer_timeout=producer_timeout, on_error=on_error, options=options)
        self._invocations = self._kind(client, name, run_options)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a handler that records with this one: a call that both get reports of is recorded once."""
        return copy.copy(self)

    def on_chain_start(self, serialized: dict[str, Any], inputs: dict[str, Any], **kwargs: Any) -> Any:
        """Record that a runnable has started."""
        return self._invocations.start(ComponentStart.read("chain", serialized, inputs, kwargs))

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any) -> Any:
        """Record a request to a chat model."""
        given = messages[0] if messages else []
        return self._invocations.start(ComponentStart.read("model_request", serialized, given, kwargs))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> Any:
        """Record a request to a model that completes text."""
        given = prompts[0] if prompts else ""
        return self._invocations.start(ComponentStart.read("model_request", serialized, given, kwargs))

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> Any:
        """Record a tool call."""
        arguments = kwargs.get("inputs")
        given = input_str if arguments is None else arguments
        return self._invocations.start(ComponentStart.read("tool", serialized, given, kwargs))

    def on_retriever_start(self, serialized: dict[str, Any], query: str, **kwargs: Any) -> Any:
        """Record a retrieval."""
        return self._invocations.start(ComponentStart.read("retrieval", serialized, query, kwargs))

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **_: Any,
    ) -> Any:
        """Record more of a model's answer."""
        self._invocations.record(run_id, lambda recorder: recorder.token(run_id, token, chunk))

    def on_stream_event(self, event: "MessagesData", *, run_id: UUID, **_: Any) -> Any:
        """Record more of a model's answer, in the events of LangChain's streaming protocol."""
        self._invocations.record(run_id, lambda recorder: recorder.stream_event(run_id, event))

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **_: Any) -> Any:
        """Record a runnable's output."""
        return self._invocations.finish(run_id, outputs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> Any:
        """Record a model's answer."""
        return self._invocations.finish(run_id, response)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> Any:
        """Record a tool's result."""
        return self._invocations.finish(run_id, output)

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **_: Any) -> Any:
        """Record a retriever's documents."""
        return self._invocations.finish(run_id, documents)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> Any:
        """Record that a runnable, a model, a tool or a retriever failed, or was cancelled."""
        return self._invocations.finish(run_id, error=error)

    on_llm_error = on_tool_error = on_retriever_error = on_chain_error

    def on_retry(self, retry_state: "RetryCallState", *, run_id: UUID, **_: Any) -> Any:
        """Record the error after which a runnable is retried."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if error is not None:
            self._invocations.record(run_id, lambda recorder: recorder.retried(run_id, error))

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **_: Any) -> Any:
        """Record an event of the application's own."""
        self._invocations.record(run_id, lambda recorder: recorder.custom(run_id, name, data))


class LavantCallbackHandler(_Callbacks[Client], BaseCallbackHandler):
    """Records `invoke`, `stream` and `batch` as AsyncLavantCallbackHandler does their asynchronous forms.

    CancelRun raises RunCancelled out of the next model, tool or function that starts. One handler serves any number
    of invocations at a time, in any threads; each of a batch is a run of its own.

    Raises TypeError at an invocation if `client` is no Client and `on_error` is "raise"; ValueError for another
    `on_error`.

    Example:
        chain = ChatPromptTemplate.from_template("How is it in {city}?") | model
        chain.invoke({"city": "Oslo"}, config={"callbacks": [LavantCallbackHandler(client)]})
        run = next(client.runs.list())
        assert client.runs.stream(run.id).text() == "It is cold."
    """

    _kind = BlockingInvocations
    # For RunCancelled, and for what on_error="raise" raises; everything else is caught before it gets here.
    raise_error = True


class AsyncLavantCallbackHandler(_Callbacks[AsyncClient], AsyncCallbackHandler):
    """Publishes each invocation, the outermost runnable that is called with it, as a run with LangChain's run id.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the invocation becomes
    a step of that run instead. In it, graph nodes, named runnables and functions are steps, as are models, each with
    one message, tools and retrievers; sequences, prompts, parsers and what is tagged `langsmith:hidden` are not
    shown. Text comes as deltas if the application streams, else whole. A `thread_id` is the run's conversation.
    A graph that waits at an `interrupt` ends its run as SUCCEEDED; resuming it is a run of the same conversation.

    It never changes what is invoked: not its inputs, outputs and errors, nor the order of its tasks. It never waits
    for the network, only at an invocation's end until all is durable, for 2 seconds at most. Unless `on_error` is
    "raise", what cannot be recorded is logged and never fails the application.

    CancelRun cancels the task in which the invocation started, and the invocation raises RunCancelled; under
    `astream`, that task may be between two chunks, and gets a CancelledError there.

    One handler serves any number of invocations at a time, in one event loop, and what runs in other threads. A
    handler that is given twice, or copied, records once; of two handlers the one given to the call records, not the
    one in a model's constructor. Inputs of invocations that are streamed in and the state that graph nodes are given
    are left out. LangChain does not report that a model or a tool was cancelled: within an invocation it ends with the
    component around it, and as an invocation of its own with its task.

    Raises TypeError at an invocation if `client` is no AsyncClient and `on_error` is "raise"; ValueError for another
    `on_error`.

    Example:
        chain = ChatPromptTemplate.from_template("How is it in {city}?") | model
        await chain.ainvoke({"city": "Oslo"}, config={"callbacks": [AsyncLavantCallbackHandler(client)]})
        run = await anext(client.runs.list())
        assert await client.runs.stream(run.id).text() == "It is cold."
    """

    _kind = AsyncInvocations
    # In the task that calls, in order: the task to cancel, and the block around the invocation, are known there.
    run_inline = True
    # For RunCancelled, and for what on_error="raise" raises; everything else is caught before it gets here.
    raise_error = True


def _awaited(callback: Callable[..., Any]) -> Callable[..., Any]:
    # LangChain awaits coroutine functions only; others it runs in a thread, or not in order.
    @functools.wraps(callback)
    async def call(self: object, *args: Any, **kwargs: Any) -> None:
        pending = callback(self, *args, **kwargs)
        if pending is not None:
            await pending

    return call


for _name, _callback in vars(_Callbacks).items():
    if _name.startswith("on_"):
        setattr(AsyncLavantCallbackHandler, _name, _awaited(_callback))
