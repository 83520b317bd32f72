"""The tool calls of one answer of a model: streamed, then whole."""

from collections import deque

from lavant.client.integrations._message_recorder import MessageRecorder
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text


class AnswerCall:
    """A tool call of an answer: the model's id for it, which may be empty or another call's too, and the run's."""

    __slots__ = ("call_id", "given", "is_whole", "name")

    def __init__(self, given: str, call_id: str, name: str) -> None:
        self.given = given
        self.call_id = call_id
        self.name = name
        self.is_whole = False


class AnswerCalls:
    """Publishes the calls as parts of the answer's message, each under an id that is unique within the run."""

    def __init__(self, message: MessageRecorder, ids: ToolCallIds) -> None:
        self._message = message
        self._ids = ids
        self._calls: list[AnswerCall] = []
        self._by_index: dict[str, AnswerCall] = {}

    def add_arguments(self, index: object, given: object, name: object, chunk: object) -> None:
        """Publish more of the arguments of the call at an index of the answer."""
        at, given, name = to_text(index), to_text(given), to_text(name)
        call = self._by_index.get(at)
        # Some providers repeat the id in each chunk, others have no index and send whole calls.
        if call is None or (given and given != call.given) or (name and not at):
            call = self._by_index[at] = self._begin(given, name)
        call.name = name or call.name
        self._message.tool_arguments(call.call_id, call.name, chunk)

    def set_whole(self, given: object, name: object, arguments: object) -> AnswerCall:
        """Set a call whole: the next one of those streamed under this id, else a new one."""
        given, name = to_text(given), to_text(name)
        streamed = (call for call in self._calls if not call.is_whole and call.given == given)
        call = next(streamed, None) or self._begin(given, name)
        call.is_whole, call.name = True, name
        self._message.tool_call(call.call_id, name, arguments, given or None)
        return call

    def by_key(self) -> dict[str, deque[str]]:
        """Return the ids in the run, in order, under what `call_key` makes of each call."""
        found: dict[str, deque[str]] = {}
        for call in self._calls:
            found.setdefault(call_key(call.given, call.name), deque()).append(call.call_id)
        return found

    def _begin(self, given: str, name: str) -> AnswerCall:
        call = AnswerCall(given, self._ids.new(given or name), name)
        self._calls.append(call)
        return call


def call_key(given: object, name: object) -> str:
    """Return what a call and its tool at work have in common: the model's id, else the tool's name."""
    return to_text(given) or to_text(name)
