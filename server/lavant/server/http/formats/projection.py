"""Base of the projections of a run's events to the events of another protocol."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple
from zlib import crc32

from lavant.contract.speakers import Speakers
from lavant.v1.event_pb2 import Event, MessageFinished, Role, StepStarted, ToolCall
from lavant.v1.run_pb2 import Run, RunFinished, RunState

TEXT, REASONING, CALL = "text", "reasoning", "call"
DELTAS = frozenset({"text_delta", "reasoning_delta", "tool_arguments_delta", "tool_output_delta"})
# Rows and records of the server: no part of a conversation, which is what these protocols are about.
LEFT_OUT = frozenset({"row_finished", "score_recorded", "alert_changed", "audit_recorded"})
_OTHERS = (Role.ROLE_USER, Role.ROLE_SYSTEM, Role.ROLE_TOOL)
_KEPT_CALLS = 2_000

Texts = Iterable[str]


def word(enum: Any, number: int, prefix: str) -> str:
    """Return a value of an enum as a word: RUN_STATE_TIMED_OUT is timed_out."""
    return str(enum.Name(number)).removeprefix(prefix).lower() if number in enum.values() else "unspecified"


class Part(NamedTuple):
    """Part of a message that is being written: text, reasoning, or the arguments of a tool call."""

    kind: str
    message_id: str
    number: int
    call_id: str = ""

    @property
    def id(self) -> str:
        """ID of the part, unique within the run for as long as the message's is."""
        return f"{self.message_id}.{self.number}"


@dataclass(slots=True)
class _Said:
    """Length and checksum of the text of one kind that a message had so far."""

    length: int = 0
    checksum: int = 0

    def add(self, text: str) -> None:
        self.length += len(text)
        self.checksum = crc32(text.encode(), self.checksum)

    def length_in(self, whole: str) -> int:
        """Return how much of the whole was sent: all of it if it does not start with what was sent."""
        begins = crc32(whole[: self.length].encode()) == self.checksum
        return self.length if begins else len(whole)


@dataclass(slots=True)
class _Message:
    step_id: str
    part: Part | None = None
    said: dict[str, _Said] = field(default_factory=lambda: {TEXT: _Said(), REASONING: _Said()})


class Projection(ABC):
    """Base of projections, which know what is open at a position of the log.

    `add` returns the JSON of the other protocol's events for the next event of the run. What a projection returns
    depends on the events before only, so one to which these were added continues a stream at any position. It sends
    the messages of the run's own agent, and the tool calls of all: each message part opens with its first text and
    closes before the next part; a message without deltas is sent when it is complete, and one that is longer than its
    deltas gets the rest. Text that was sent before a step is tried again stays sent.
    """

    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, run: Run) -> None:
        self.run_id = run.run_id
        self.thread_id = run.conversation_id or run.run_id
        self.steps: dict[str, StepStarted] = {}
        self._speakers = Speakers()
        self._messages: dict[str, _Message] = {}
        self._calls: dict[str, _Said | None] = {}  # the arguments that were sent; None: all of them

    def add(self, event: Event) -> list[str]:
        """Return what to send for the next event of the run."""
        self._speakers.add(event)
        rule = RULES.get(event.WhichOneof("payload") or "")
        return [] if rule is None else [*rule(self, event)]

    @staticmethod
    @abstractmethod
    def broken_off(reason: str, message: str) -> list[str]:
        """Return what a reader gets whose stream ends before the run does."""

    @abstractmethod
    def started(self) -> Texts:
        """Return the start of the run."""

    @abstractmethod
    def finished(self, end: RunFinished) -> Texts:
        """Return the end of the run; nothing is open any more."""

    @abstractmethod
    def open_part(self, part: Part, tool_name: str = "") -> Texts:
        """Return the start of a part."""

    @abstractmethod
    def delta(self, part: Part, text: str) -> Texts:
        """Return more of a part that is open."""

    @abstractmethod
    def close_part(self, part: Part) -> Texts:
        """Return the end of a part."""

    @abstractmethod
    def call(self, call: ToolCall, message_id: str, sent: int | None) -> Texts:
        """Return a call whose arguments are complete. Parts with `sent` characters of them were sent; None: no part."""

    @abstractmethod
    def result(self, event: Event) -> Texts:
        """Return the result of a tool call."""

    @abstractmethod
    def start_step(self, step: StepStarted) -> Texts:
        """Return the start of a step, or of an attempt of it."""

    @abstractmethod
    def finish_step(self, step: StepStarted, state: str) -> Texts:
        """Return the end of a step; `state` is empty if it did not finish before the run or its next attempt."""

    @abstractmethod
    def other(self, event: Event) -> Texts:
        """Return an event of any other type."""

    def _finished(self, event: Event) -> Texts:
        for message in self._messages.values():
            yield from self._close(message)
        self._messages.clear()
        while self.steps:
            yield from self.finish_step(self.steps.popitem()[1], "")
        yield from self.finished(event.run_finished)

    def _step_started(self, event: Event) -> Texts:
        step = event.step_started
        if step.attempt > 1:
            yield from self._drop(step.step_id)
        if step.step_id in self.steps:
            yield from self.finish_step(self.steps.pop(step.step_id), "")
        self.steps[step.step_id] = step
        yield from self.start_step(step)

    def _drop(self, step_id: str) -> Texts:
        """Close the messages of an earlier attempt, and of the steps below it; what follows of them is not sent."""
        dropped = {step_id}
        for step in self.steps.values():  # parents come before their children
            if step.parent_step_id in dropped:
                dropped.add(step.step_id)
        for message_id, message in [*self._messages.items()]:
            if message.step_id in dropped:
                yield from self._close(message)
                del self._messages[message_id]

    def _step_finished(self, event: Event) -> Texts:
        step = self.steps.pop(event.step_finished.step_id, None)
        if step is not None:
            yield from self.finish_step(step, word(RunState, event.step_finished.state, "RUN_STATE_"))
            self._speakers.forget(step.step_id)

    def _message_started(self, event: Event) -> Texts:
        started = event.message_started
        if started.role not in _OTHERS and not self._speakers.is_nested(event.step_id):
            self._messages[started.message_id] = _Message(event.step_id)
        return ()

    def _text_delta(self, event: Event) -> Texts:
        delta = event.text_delta
        return self._say(Part(TEXT, delta.message_id, delta.part_index), delta.text)

    def _reasoning_delta(self, event: Event) -> Texts:
        delta = event.reasoning_delta
        return self._say(Part(REASONING, delta.message_id, delta.part_index), delta.text)

    def _say(self, part: Part, text: str) -> Texts:
        message = self._messages.get(part.message_id)
        if message is not None and text:
            message.said[part.kind].add(text)
            yield from self._open(message, part)
            yield from self.delta(part, text)

    def _tool_arguments_delta(self, event: Event) -> Texts:
        delta = event.tool_arguments_delta
        message = self._messages.get(delta.message_id)
        if message is None:
            return
        if delta.tool_call_id not in self._calls:
            self._keep_call(delta.tool_call_id, _Said())
        said = self._calls[delta.tool_call_id]
        if said is None:
            return
        part = Part(CALL, delta.message_id, delta.part_index, delta.tool_call_id)
        yield from self._open(message, part, delta.tool_name)
        if delta.arguments:
            said.add(delta.arguments)
            yield from self.delta(part, delta.arguments)

    def _message_finished(self, event: Event) -> Texts:
        finished = event.message_finished
        message = self._messages.pop(finished.message_id, None)
        if message is None:
            return
        sent = {
            kind: said.length_in(_whole(finished, kind)) for kind, said in message.said.items()
        }  # of the whole, not yet met in the parts
        for number, content in enumerate(finished.parts):
            kind = content.WhichOneof("content")
            if kind == "tool_call":
                yield from self._close(message)
                yield from self._call(content.tool_call, finished.message_id)
            elif kind is not None:
                text: str = getattr(content, kind)
                begun = min(sent[kind], len(text))
                sent[kind] -= begun
                if begun < len(text):
                    is_open = begun and message.part is not None and message.part.kind == kind
                    part = message.part if is_open and message.part else Part(kind, finished.message_id, number)
                    yield from self._open(message, part)
                    yield from self.delta(part, text[begun:])
        yield from self._close(message)

    def _tool_call_started(self, event: Event) -> Texts:
        return self._call(event.tool_call_started.call, "")

    def _call(self, call: ToolCall, message_id: str) -> Texts:
        said = self._calls.get(call.tool_call_id)
        if said is not None:
            sent: int | None = said.length_in(call.arguments_json)
        elif call.tool_call_id in self._calls:
            return
        else:
            sent = None
        yield from self._close_call(call.tool_call_id)
        self._keep_call(call.tool_call_id, None)
        yield from self.call(call, message_id, sent)

    def _keep_call(self, call_id: str, said: _Said | None) -> None:
        self._calls[call_id] = said
        if len(self._calls) > _KEPT_CALLS:
            del self._calls[next(iter(self._calls))]

    def _open(self, message: _Message, part: Part, tool_name: str = "") -> Texts:
        if message.part != part:
            yield from self._close(message)
            if part.call_id:
                yield from self._close_call(part.call_id)
            message.part = part
            yield from self.open_part(part, tool_name)

    def _close_call(self, call_id: str) -> Texts:
        """Close the part of a call, wherever it is open: messages may name the same one."""
        for message in self._messages.values():
            if message.part is not None and message.part.call_id == call_id:
                yield from self._close(message)

    def _close(self, message: _Message) -> Texts:
        part, message.part = message.part, None
        if part is not None:
            yield from self.close_part(part)


def _whole(finished: MessageFinished, kind: str) -> str:
    return "".join(getattr(part, kind) for part in finished.parts)


# How each type of event is sent. A type that is neither here nor left out fails a test.
RULES: dict[str, Callable[[Projection, Event], Iterable[str]]] = {
    "run_started": lambda projection, _: projection.started(),
    "run_finished": Projection._finished,
    "step_started": Projection._step_started,
    "step_finished": Projection._step_finished,
    "message_started": Projection._message_started,
    "text_delta": Projection._text_delta,
    "reasoning_delta": Projection._reasoning_delta,
    "tool_arguments_delta": Projection._tool_arguments_delta,
    "message_finished": Projection._message_finished,
    "tool_call_started": Projection._tool_call_started,
    "tool_call_finished": lambda projection, event: projection.result(event),
    **dict.fromkeys(
        (
            "run_state_changed", "tool_output_delta", "progress_reported", "error_reported", "state_snapshot",
            "state_delta", "artifact_updated", "input_requested", "input_resolved", "custom",
        ),
        lambda projection, event: projection.other(event),
    ),
}  # fmt: skip
