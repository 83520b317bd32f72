"""Steps of a run, derived from its events, with the text and calls of each."""

from collections.abc import Iterator

from lavant.client._reading.projections import finished_call, is_assistant, started_call, text_of
from lavant.client.event_data import MessageFinished, StepFinished, StepStarted
from lavant.client.events import Event, MessageStartedEvent, TextDeltaEvent, ToolCallFinishedEvent, ToolCallStartedEvent
from lavant.client.models import Step, ToolCall
from lavant.client.states import StepKind


class StepProjection:
    """Builds steps: each is given when it is done, after its children, with all that began in it.

    What of it is still open by then is unfinished in what is given; a step that ends after its
    parent is given by itself. When a step is tried again, what belonged to its earlier attempts is
    dropped: it is neither given any more nor part of what is. A step whose start was not read, as
    on a stream that was resumed, has only its end; its children are outermost steps.
    Any order of events is accepted. In a run of unordered steps, one whose parent starts later, or
    has ended, belongs to it in `roots`; it is given by itself when it ends.

    Unless `keep`, outermost steps are forgotten once they are done and given.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._roots: list[_Node] = []
        self._open: dict[str, _Node] = {}
        # Of a run of unordered steps that are kept: all of them, and those by their parents that have not started.
        self._all: dict[str, _Node] | None = None
        self._orphans: dict[str, list[_Node]] = {}
        self._messages: dict[str, _Message | None] = {}
        self._callers: dict[str, _Node] = {}
        # While deltas of one message follow each other: the message's id, and the message. Most events are such.
        self._speaking: str | None = None
        self._message_spoken: _Message | None = None

    def add(self, event: Event) -> Step | None:
        """Return the step that an event completes, if it does."""
        if event.type == "text_delta":
            self._add_delta(event)
            return None
        self._speaking = None
        match event.type:
            case "message_started":
                self._start_message(event)
            case "message_finished":
                self._finish_message(event.data, event)
            case "tool_call_started":
                self._start_call(event)
            case "tool_call_finished":
                self._finish_call(event)
            case "run_started" if event.data.unordered_steps and self._keep:
                self._all = {}
            case "step_started":
                self._start(event.data)
            case "step_finished":
                return self._finish(event.data, event.step_id)
        return None

    def roots(self) -> tuple[Step, ...]:
        """Return the outermost steps in the order of their starts."""
        return tuple(node.as_step() for node in self._roots)

    def unfinished(self) -> tuple[Step, ...]:
        """Return the steps that have not ended, without those inside another one, as trees; their state is None."""
        return tuple(node.as_step() for node in self._open.values() if node.is_held and not node.is_within_open)

    def _add_delta(self, event: TextDeltaEvent) -> None:
        delta = event.proto.text_delta
        if (message_id := delta.message_id) != self._speaking:
            self._speaking, self._message_spoken = message_id, self._message(message_id, event)
        if (message := self._message_spoken) is not None:
            message.chunks.append(delta.text)
            message.node.changed()

    def _start(self, started: StepStarted) -> None:
        if earlier := self._open.pop(started.step_id, None):
            self._drop(earlier)
        parent = (self._open if self._all is None else self._all).get(started.parent_step_id)
        siblings = self._roots if parent is None else parent.children
        if started.attempt > 1:
            for node in [node for node in siblings if node.id == started.step_id]:
                self._drop(node)
        node = self._open[started.step_id] = _Node(started.step_id, started.parent_step_id, started, parent)
        siblings.append(node)
        if parent is not None:
            parent.changed()
        if self._all is not None:
            self._all[node.id] = node
            self._adopt(node)

    def _adopt(self, parent: "_Node") -> None:
        """Move outermost steps into their parent, which has started after them."""
        for node in self._orphans.pop(parent.id, ()):
            if not node.is_dropped and node is not parent and node not in parent.above():  # no cycles
                self._roots.remove(node)
                parent.children.append(node)
                node.parent = parent
        if parent.parent is None and parent.parent_id:
            self._orphans.setdefault(parent.parent_id, []).append(parent)

    def _finish(self, finished: StepFinished, outer_id: str) -> Step | None:
        node = self._open.pop(finished.step_id, None)
        if node is None:
            node = _Node(finished.step_id, outer_id if outer_id != finished.step_id else "")
            self._roots.append(node)
        node.finished = finished
        node.changed()
        if not self._keep and node in self._roots:
            self._roots.remove(node)
        return node.as_step() if node.is_held else None

    def _drop(self, node: "_Node") -> None:
        node.is_dropped = True
        siblings = self._roots if node.parent is None else node.parent.children
        if node in siblings:
            siblings.remove(node)
        if node.parent is not None:
            node.parent.changed()

    def _start_message(self, event: MessageStartedEvent) -> None:
        self._messages.pop(event.data.message_id, None)
        if is_assistant(event.data.role):
            self._message(event.data.message_id, event)
        else:
            self._messages[event.data.message_id] = None

    def _finish_message(self, finished: MessageFinished, event: Event) -> None:
        if is_assistant(finished.role) and (message := self._message(finished.message_id, event)):
            message.chunks[:] = [text_of(finished)]
            message.node.changed()
        self._messages.pop(finished.message_id, None)

    def _message(self, message_id: str, event: Event) -> "_Message | None":
        """Return the message to add to; None if it is not an assistant's, or not in a known step."""
        try:
            return self._messages[message_id]
        except KeyError:
            node = self._open.get(event.step_id)
            message = self._messages[message_id] = None if node is None else _Message(node)
            return message

    def _start_call(self, event: ToolCallStartedEvent) -> None:
        if node := self._open.get(event.step_id):
            self._callers[event.data.call.tool_call_id] = node
            node.call(started_call(event))

    def _finish_call(self, event: ToolCallFinishedEvent) -> None:
        call_id = event.data.tool_call_id
        if node := self._callers.pop(call_id, None) or self._open.get(event.step_id):
            node.call(finished_call(node.calls.get(call_id), event))


class _Message:
    """Text of a message so far, and its step."""

    __slots__ = ("chunks", "node")

    def __init__(self, node: "_Node") -> None:
        self.node = node
        self.chunks: list[str] = []
        node.messages.append(self)


class _Node:
    """A step under construction.

    It caches the step made of it. If it has one, so have all its children; if it has none, its ancestors have none. So
    a change invalidates only ancestors, and only changed steps are made again.
    """

    __slots__ = (
        "calls",
        "children",
        "finished",
        "id",
        "is_dropped",
        "messages",
        "parent",
        "parent_id",
        "started",
        "step",
    )

    def __init__(
        self,
        step_id: str,
        parent_id: str,
        started: StepStarted | None = None,
        parent: "_Node | None" = None,
    ) -> None:
        self.id = step_id
        self.parent_id = parent_id
        self.parent = parent
        self.started = started
        self.finished: StepFinished | None = None
        self.is_dropped = False
        self.children: list[_Node] = []
        self.messages: list[_Message] = []
        self.calls: dict[str, ToolCall] = {}
        self.step: Step | None = None

    @property
    def is_held(self) -> bool:
        """Whether it belongs to no attempt that was dropped."""
        return not self.is_dropped and not any(node.is_dropped for node in self.above())

    @property
    def is_within_open(self) -> bool:
        """Whether a step above it has not ended."""
        return any(node.finished is None for node in self.above())

    def call(self, call: ToolCall) -> None:
        """Set a call."""
        self.calls[call.id] = call
        self.changed()

    def changed(self) -> None:
        """Drop the cached steps of this node and its ancestors."""
        node: _Node | None = self
        while node is not None and node.step is not None:
            node.step = None
            node = node.parent

    def as_step(self) -> Step:
        """Return the step. Not recursive, because steps may nest deeper than Python's stack."""
        if self.step is not None:
            return self.step
        waiting = [self]
        while waiting:
            node = waiting[-1]
            if missing := [child for child in node.children if child.step is None]:
                waiting += missing
            else:
                waiting.pop()
                step = node.step = node._make()
        return step

    def above(self) -> "Iterator[_Node]":
        """Yield the steps around this one, from the innermost."""
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def _make(self) -> Step:
        started, finished = self.started, self.finished
        return Step(
            id=self.id,
            parent_id=self.parent_id,
            name=started.name if started else "",
            kind=started.kind if started else StepKind.UNSPECIFIED,
            attempt=started.attempt or 1 if started else 1,
            state=finished.state if finished else None,
            input=started.input if started else None,
            output=finished.output if finished else None,
            error=finished.error if finished else None,
            usage=finished.usage if finished else None,
            duration=finished.duration if finished else None,
            text="".join("".join(message.chunks) for message in self.messages),
            tool_calls=tuple(self.calls.values()),
            children=tuple(child.step for child in self.children if child.step is not None),
        )
