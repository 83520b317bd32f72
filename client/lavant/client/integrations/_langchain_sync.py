"""The callbacks of LangChain's blocking calls, recorded."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, GenerationChunk, LLMResult
from typing_extensions import override

from lavant.client import Client, ProducerOptions
from lavant.client._options import OnError
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_blocking import BlockingRoots

if TYPE_CHECKING:
    from langchain_protocol.protocol import MessagesData
    from tenacity import RetryCallState


class LavantCallbackHandler(BaseCallbackHandler):
    """Records `invoke`, `stream` and `batch` as AsyncLavantCallbackHandler does their asynchronous forms.

    CancelRun raises RunCancelled out of the next model, tool or function that begins. One handler serves any number
    of roots at a time, in any threads; each of a batch's is a root.

    Example:
        chain = ChatPromptTemplate.from_template("How is it in {city}?") | model
        chain.invoke({"city": "Oslo"}, config={"callbacks": [LavantCallbackHandler(client)]})
        run = next(client.runs.list())
        assert client.runs.stream(run.id).text() == "It is cold."
    """

    # For RunCancelled, and for what on_error="raise" raises; all else is caught before it gets here.
    raise_error = True

    def __init__(
        self,
        client: Client,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> None:
        self._roots = BlockingRoots(
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
    def on_chain_start(self, serialized: dict[str, Any], inputs: dict[str, Any], **kwargs: Any) -> None:
        """A runnable begins."""
        self._roots.begin(Begun.read("chain", serialized, inputs, kwargs))

    @override
    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        """A chat model is asked."""
        self._roots.begin(Begun.read("model_request", serialized, messages[0] if messages else [], kwargs))

    @override
    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """A model that completes text is asked."""
        self._roots.begin(Begun.read("model_request", serialized, prompts[0] if prompts else "", kwargs))

    @override
    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
        """A tool is called."""
        arguments = kwargs.get("inputs")
        self._roots.begin(Begun.read("tool", serialized, input_str if arguments is None else arguments, kwargs))

    @override
    def on_retriever_start(self, serialized: dict[str, Any], query: str, **kwargs: Any) -> None:
        """A retriever is asked."""
        self._roots.begin(Begun.read("retrieval", serialized, query, kwargs))

    @override
    def on_llm_new_token(
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
    def on_stream_event(self, event: "MessagesData", *, run_id: UUID, **kwargs: Any) -> None:
        """A model says more, in the events of LangChain's streaming protocol."""
        self._roots.record(run_id, lambda recorder: recorder.stream_event(run_id, event))

    @override
    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """A runnable is done."""
        self._roots.end(run_id, outputs)

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """A model has answered."""
        self._roots.end(run_id, response)

    @override
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool is done."""
        self._roots.end(run_id, output)

    @override
    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever has found what it could."""
        self._roots.end(run_id, documents)

    @override
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A runnable failed, or was cancelled."""
        self._roots.end(run_id, error=error)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A model failed."""
        self._roots.end(run_id, error=error)

    @override
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A tool failed."""
        self._roots.end(run_id, error=error)

    @override
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A retriever failed."""
        self._roots.end(run_id, error=error)

    @override
    def on_retry(self, retry_state: "RetryCallState", *, run_id: UUID, **kwargs: Any) -> None:
        """Something is tried again."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if error is not None:
            self._roots.record(run_id, lambda recorder: recorder.retried(run_id, error))

    @override
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """The application dispatches an event of its own."""
        self._roots.record(run_id, lambda recorder: recorder.custom(run_id, name, data))
