"""What a run's assistants and users say: the messages that are open."""

from typing import TYPE_CHECKING, Literal

from lavant.client import _scope
from lavant.client._async.concurrency import Lock
from lavant.client._async.publisher import Publisher
from lavant.client._ids import new_id
from lavant.client._message import MessageDraft, pieces
from lavant.client._models import Usage
from lavant.v1.event_pb2 import Event

if TYPE_CHECKING:
    from lavant.client._async.producer import AsyncRunProducer


class Messages:
    """Puts text into messages: into the given one, else into the one that was opened last in this step.

    Where none is open, one is begun for the text, and ends where a step, a tool or another message begins.
    """

    def __init__(self, run: "AsyncRunProducer", publisher: Publisher, model: str) -> None:
        self._run = run
        self._publisher = publisher
        self._model = model
        self._lock = Lock()
        self._current: dict[str, MessageDraft] = {}
        self._by_themselves: set[MessageDraft] = set()

    async def say(self, kind: Literal["text", "reasoning"], chunk: str, draft: MessageDraft | None = None) -> None:
        """Say more: what does not fit into the message any more, in another one that follows it."""
        try:
            if self._publisher.raises and not isinstance(chunk, str):
                raise TypeError(f"text must be a str, not {type(chunk).__name__}")
            for piece in pieces(chunk):
                await self._publisher.wait_for_room()
                with self._lock:
                    if self._publisher.admits():
                        self._publisher.enqueue_admitted(*self._said(kind, piece, draft or self._draft()))
        except Exception as refused:
            self._publisher.refuse(refused)

    async def begin(self, draft: MessageDraft) -> None:
        """Open a message."""
        self.end_current()
        await self._publisher.wait_for_room()
        with self._lock:
            if self._publisher.admits():
                self._publisher.enqueue_admitted(self._placed(draft.start()))
                self._current[_scope.current_step(self._run)] = draft

    def end(self, draft: MessageDraft, finish_reason: str = "", usage: Usage | None = None) -> None:
        """Finish a message."""
        with self._lock:
            self._forget(draft)
            if draft.is_started:
                self._publisher.enqueue(self._placed(draft.finish(finish_reason, usage)), closing=True)

    def end_current(self) -> None:
        """Finish the message that was begun by itself in this step, if it is still open."""
        draft = self._current.get(_scope.current_step(self._run))
        if draft is not None and draft in self._by_themselves:
            self.end(draft)

    def last(self) -> list[Event]:
        """Return what finishes the messages that were begun by themselves and are still open."""
        with self._lock:
            finished = []
            for step_id, draft in self._current.items():
                if draft in self._by_themselves and draft.is_started:
                    finished.append(draft.finish())
                    finished[-1].step_id = step_id
            return finished

    def _said(self, kind: Literal["text", "reasoning"], piece: str, draft: MessageDraft) -> list[Event]:
        events = []
        if not draft.has_room(piece):
            events.append(draft.finish())
            draft.renew(new_id())
        if not draft.is_started:
            events.append(draft.start())
        events.append(draft.text(piece) if kind == "text" else draft.reasoning(piece))
        if step_id := _scope.current_step(self._run):
            for event in events:
                event.step_id = step_id
        return events

    def _draft(self) -> MessageDraft:
        step_id = _scope.current_step(self._run)
        draft = self._current.get(step_id)
        if draft is None:
            draft = self._current[step_id] = MessageDraft(new_id(), model=self._model)
            self._by_themselves.add(draft)
        return draft

    def _forget(self, draft: MessageDraft) -> None:
        self._by_themselves.discard(draft)
        for step_id in [step for step, current in self._current.items() if current is draft]:
            del self._current[step_id]

    def _placed(self, event: Event) -> Event:
        event.step_id = _scope.current_step(self._run)
        return event
