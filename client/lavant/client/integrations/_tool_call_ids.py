"""IDs of an agent's tool calls: the provider's own where they are valid and unique within the run."""

from collections import deque

from lavant.contract.text import to_id, to_text


class ToolCallIds:
    """Maps the provider's IDs to IDs that are unique within the run.

    `step_id` is the agent's step; the calls of a nested agent get its last characters as a prefix, since two
    agents may number their calls alike. A provider may also give one ID twice, or none.

    Example:
        ids = ToolCallIds("")
        assert [ids.begin("call-1"), ids.begin("call-1")] == ["call-1", "call-1~2"]
        assert [ids.take("call-1"), ids.take("call-1")] == ["call-1", "call-1~2"]
    """

    def __init__(self, step_id: str) -> None:
        self._prefix = f"{step_id[-12:]}." if step_id else ""
        self._used: set[str] = set()
        self._waiting: dict[str, deque[str]] = {}

    def begin(self, foreign: object) -> str:
        """Return a new ID for a call that the model makes, and expect the call's execution."""
        call_id = self.new(foreign)
        self.expect(foreign, call_id)
        return call_id

    def new(self, foreign: object) -> str:
        """Return a new ID for a call."""
        base = f"{self._prefix}{to_text(foreign) or 'call'}"
        call_id, count = to_id(base), 1
        while call_id in self._used:
            count += 1
            call_id = to_id(f"{base}~{count}")
        self._used.add(call_id)
        return call_id

    def expect(self, foreign: object, call_id: str) -> None:
        """Expect the execution of a call under the provider's ID, which may become known only while it streams."""
        self._waiting.setdefault(to_text(foreign), deque()).append(call_id)

    def take(self, foreign: object) -> str:
        """Return the ID of the call that is executed or answered now; a new one for a call that no model made."""
        waiting = self._waiting.get(to_text(foreign))
        return waiting.popleft() if waiting else self.new(foreign)

    def forget_expected(self) -> None:
        """Expect no call any more: the model is asked again, so what was not executed by now never is."""
        self._waiting.clear()
