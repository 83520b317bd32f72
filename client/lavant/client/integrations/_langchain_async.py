"""The callbacks of LangChain's asynchronous calls, recorded."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk, LLMResult
from typing_extensions import override

from lavant.client import AsyncClient, ProducerOptions
from lavant.client._options import OnError
from lavant.client.integrations._langchain_asynchronous import AsyncRoots
from lavant.client.integrations._langchain_begun import Begun

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData
    from tenacity import RetryCallState


class AsyncLavantCallbackHandler(AsyncCallbackHandler):
    """Publishes each root, the outermost runnable called with it, as a run of lavant's with LangChain's run id.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the root becomes
    a step of that run instead. In it, graph nodes, named runnables and functions are steps, as are models, each with
    one message, tools and retrievers; sequences, prompts, parsers and what is tagged `langsmith:hidden` are not
    shown. Text comes as deltas if the application streams, else whole. A `thread_id` is the run's conversation.
    A graph that waits at an `interrupt` ends its run well; resuming it is a run of the same conversation.

    CancelRun cancels the task that the root began in, and the root raises RunCancelled; under `astream`, the
    task may be between two chunks, and gets a CancelledError there. The application never waits for the network, only
    at the root's end until all is durable, for 2 seconds at most. Unless `on_error` is "raise", what cannot be recorded
    never fails it.

    One handler serves any number of roots at a time, in one event loop, and what runs in other threads. A handler that
    is given twice, or copied, records once; of two handlers the one given to the call records, not the one in a
    model's constructor. Inputs of roots that are streamed in and the state that graph nodes are given are left out.
    LangChain does not tell that a model or a tool was cancelled: within a root it ends with what is around it, and as a
    root with its task.

    Example:
        chain = ChatPromptTemplate.from_template("How is it in {city}?") | model
        await chain.ainvoke({"city": "Oslo"}, config={"callbacks": [AsyncLavantCallbackHandler(client)]})
        run = await anext(client.runs.list())
        assert await client.runs.stream(run.id).text() == "It is cold."
    """

    # In the task that calls, in order: the task to cancel, and the block that the root is in, are known there.
    run_inline = True
    # For RunCancelled, and for what on_error="raise" raises; all else is caught before it gets here.
    raise_error = True

    def __init__(
        self,
        client: AsyncClient,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> None:
        self._roots = AsyncRoots(
            client,
            name=name,
            labels=labels,
            producer_timeout=producer_timeout,
            on_error=on_error,
            options=options,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a handler that records with this one: a run that both are told of is recorded once."""
        return copy.copy(self)

    @override
    async def on_chain_start(self, serialized: dict[str, Any], inputs: dict[str, Any], **kwargs: Any) -> None:
        """A runnable begins."""
        await self._roots.begin(Begun.read("chain", serialized, inputs, kwargs))

    @override
    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
    ) -> None:
        """A chat model is asked."""
        await self._roots.begin(Begun.read("model_request", serialized, messages[0] if messages else [], kwargs))

    @override
    async def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """A model that completes text is asked."""
        await self._roots.begin(Begun.read("model_request", serialized, prompts[0] if prompts else "", kwargs))

    @override
    async def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
        """A tool is called."""
        arguments = kwargs.get("inputs")
        await self._roots.begin(Begun.read("tool", serialized, input_str if arguments is None else arguments, kwargs))

    @override
    async def on_retriever_start(self, serialized: dict[str, Any], query: str, **kwargs: Any) -> None:
        """A retriever is asked."""
        await self._roots.begin(Begun.read("retrieval", serialized, query, kwargs))

    @override
    async def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """A model says more."""
        self._roots.record(run_id, lambda recorder: recorder.token(run_id, token, chunk))

    @override
    async def on_stream_event(self, event: "MessagesData", *, run_id: UUID, **kwargs: Any) -> None:
        """A model says more, in the events of LangChain's streaming protocol."""
        self._roots.record(run_id, lambda recorder: recorder.stream_event(run_id, event))

    @override
    async def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """A runnable is done."""
        await self._roots.end(run_id, outputs)

    @override
    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """A model has answered."""
        await self._roots.end(run_id, response)

    @override
    async def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool is done."""
        await self._roots.end(run_id, output)

    @override
    async def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever has found what it could."""
        await self._roots.end(run_id, documents)

    @override
    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A runnable failed, or was cancelled."""
        await self._roots.end(run_id, error=error)

    @override
    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A model failed."""
        await self._roots.end(run_id, error=error)

    @override
    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool failed."""
        await self._roots.end(run_id, error=error)

    @override
    async def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever failed."""
        await self._roots.end(run_id, error=error)

    @override
    async def on_retry(self, retry_state: "RetryCallState", *, run_id: UUID, **kwargs: Any) -> None:
        """Something is tried again."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if error is not None:
            self._roots.record(run_id, lambda recorder: recorder.retried(run_id, error))

    @override
    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The application dispatches an event of its own."""
        self._roots.record(run_id, lambda recorder: recorder.custom(run_id, name, data))
