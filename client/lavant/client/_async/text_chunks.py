"""The text of a run, chunk by chunk."""

from collections.abc import AsyncIterator, Callable

from lavant.client._async.concurrency import UsageHints
from lavant.client._text_chunk import TextChunk


class AsyncTextChunks(UsageHints, AsyncIterator[TextChunk]):
    """What the run's own agent says. Call it with `nested=True` for what nested agents say as well.

    Example:
        async for chunk in client.runs.stream(run_id).text_chunks:
            print(chunk, end="", flush=True)
        async for chunk in client.runs.stream(run_id).text_chunks(nested=True):
            print(chunk.step_name, chunk)
    """

    def __init__(self, read: Callable[[bool], AsyncIterator[TextChunk]]) -> None:
        self._read = read
        self._chunks: AsyncIterator[TextChunk] | None = None

    def __call__(self, *, nested: bool = False) -> AsyncIterator[TextChunk]:
        """Return the chunks; with `nested`, those of nested agents too."""
        return self._read(nested)

    def __aiter__(self) -> AsyncIterator[TextChunk]:
        return self._read(False)

    async def __anext__(self) -> TextChunk:
        if self._chunks is None:
            self._chunks = self._read(False)
        return await anext(self._chunks)
