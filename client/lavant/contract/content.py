"""What must be remembered of a log so that new events can be checked against it."""

from typing import Any

from lavant.contract.limits import MAX_OPEN
from lavant.contract.violation import TooManyOpen
from lavant.v1.run_pb2 import RunState

_FIELDS = ("steps", "messages", "tool_calls", "inputs")


class LogContent:
    """The things that a log has open, each by its id.

    Memory is bounded: what is finished is forgotten, and of each kind at most `MAX_OPEN`
    things may be open at once: all of it is written again with every batch.

    Shapes: `steps` maps a step's id to its attempt; in the others the values mean nothing.
    Changes since the last `mark` can be undone. `state` is the state the events have led to.
    """

    __slots__ = ("_changes", "_marked_state", "inputs", "messages", "state", "steps", "tool_calls")

    def __init__(self, state: "RunState.ValueType" = RunState.RUN_STATE_QUEUED) -> None:
        self.state = state
        self.steps: dict[str, int] = {}
        self.messages: dict[str, int] = {}
        self.tool_calls: dict[str, int] = {}
        self.inputs: dict[str, int] = {}
        self._changes: list[tuple[dict[str, int], str, int | None]] = []
        self._marked_state = state

    @property
    def started(self) -> bool:
        """Whether there is a RunStarted."""
        return self.state > RunState.RUN_STATE_QUEUED

    def mark(self) -> None:
        """Make this the point that `undo` returns to."""
        self._changes.clear()
        self._marked_state = self.state

    def undo(self) -> None:
        """Take back all changes since the last `mark`."""
        for ids, key, before in reversed(self._changes):
            if before is None:
                del ids[key]
            else:
                ids[key] = before
        self._changes.clear()
        self.state = self._marked_state

    def remember(self, kind: str, key: str, value: int = 1) -> None:
        """Remember a thing, or give it a new value; raises TooManyOpen when there are too many."""
        ids: dict[str, int] = getattr(self, kind)
        before = ids.get(key)
        if before is None and len(ids) >= MAX_OPEN:
            raise TooManyOpen("batch.events", kind, MAX_OPEN)
        self._changes.append((ids, key, before))
        ids[key] = value

    def forget(self, kind: str, key: str) -> None:
        """Forget a thing that is remembered."""
        ids: dict[str, int] = getattr(self, kind)
        self._changes.append((ids, key, ids.pop(key)))

    def encode(self) -> dict[str, Any]:
        """Turn into what JSON can hold; the state is not part of it, since the Run has it."""
        encoded: dict[str, Any] = {kind: list(ids) for kind in _FIELDS[1:] if (ids := getattr(self, kind))}
        if self.steps:
            encoded["steps"] = dict(self.steps)
        return encoded

    @classmethod
    def decode(cls, encoded: dict[str, Any], state: "RunState.ValueType") -> "LogContent":
        """Read what `encode` gave, of a run in this state."""
        content = cls(state)
        content.steps.update(encoded.get("steps", {}))
        for kind in _FIELDS[1:]:
            getattr(content, kind).update(dict.fromkeys(encoded.get(kind, ()), 1))
        return content
