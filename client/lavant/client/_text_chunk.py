"""A piece of what a run's agents say."""


class TextChunk(str):
    """A str that knows where it was said.

    `step_id` and `step_name` are of the innermost step, empty for the run itself; `message_id` is the same for all
    chunks of a message. `is_nested` tells whether a nested agent said it.

    Example:
        async for chunk in client.runs.stream(run_id).text_chunks(nested=True):
            print(f"[{chunk.step_name}] {chunk}" if chunk.is_nested else chunk)
    """

    __slots__ = ("is_nested", "message_id", "step_id", "step_name")
    step_id: str
    step_name: str
    message_id: str
    is_nested: bool

    def __new__(
        cls, text: str, *, step_id: str = "", step_name: str = "", message_id: str = "", is_nested: bool = False
    ) -> "TextChunk":
        """Make a chunk of a text."""
        chunk = super().__new__(cls, text)
        chunk.step_id, chunk.step_name = step_id, step_name
        chunk.message_id, chunk.is_nested = message_id, is_nested
        return chunk
