# Made from _async/text_chunks.py by client/unasync.py: change that one.
"""The text of a run, chunk by chunk."""

from collections.abc import Callable, Iterator

from lavant.client._sync.concurrency import UsageHints
from lavant.client._text_chunk import TextChunk


class TextChunks(UsageHints, Iterator[TextChunk]):
    """What the run's own agent says. Call it with `nested=True` for what nested agents say as well.

    Example:
        for chunk in client.runs.stream(run_id).text_chunks:
            print(chunk, end="", flush=True)
        for chunk in client.runs.stream(run_id).text_chunks(nested=True):
            print(chunk.step_name, chunk)
    """

    def __init__(self, read: Callable[[bool], Iterator[TextChunk]]) -> None:
        self._read = read
        self._chunks: Iterator[TextChunk] | None = None

    def __call__(self, *, nested: bool = False) -> Iterator[TextChunk]:
        """Return the chunks; with `nested`, those of nested agents too."""
        return self._read(nested)

    def __iter__(self) -> Iterator[TextChunk]:
        return self._read(False)

    def __next__(self) -> TextChunk:
        if self._chunks is None:
            self._chunks = self._read(False)
        return next(self._chunks)
