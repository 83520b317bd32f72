"""Shows what is said: messages as they come, or whole where their deltas were not seen."""

from lavant.client import Event, Role
from lavant.client._events import MessageFinishedEvent
from lavant.client.cli._tail_outline import Place
from lavant.client.cli._tail_speech import Speech
from lavant.client.cli._untrusted import neutral

_REASONING_STYLE = "dim italic"
_OTHERS_STYLE = "dim"
_OTHERS = {Role.USER, Role.SYSTEM, Role.TOOL}


class Messages:
    """The messages of a run that are not finished, by their ids.

    `joins_midway`: earlier deltas of a message may have been shown elsewhere, so that a message is not
    shown whole at its end unless its beginning was seen.
    """

    def __init__(self, speech: Speech, *, joins_midway: bool) -> None:
        self._speech = speech
        self._joins_midway = joins_midway
        self._roles: dict[str, Role] = {}
        self._spoken: set[str] = set()

    def take(self, event: Event, place: Place | None) -> bool:
        """Show an event that is about a message; returns whether it is."""
        match event.type:
            case "text_delta":
                self._speak(event.data.message_id, place, event.data.text)
            case "reasoning_delta":
                self._speak(event.data.message_id, place, event.data.text, _REASONING_STYLE)
            case "message_started":
                self._roles[event.data.message_id] = event.data.role
            case "message_finished":
                self._finish(event, place)
            case _:
                return False
        return True

    def _speak(self, message_id: str, place: Place | None, text: str, style: str = "") -> None:
        self._spoken.add(message_id)
        if self._roles.get(message_id) in _OTHERS:
            style = _OTHERS_STYLE
        self._speech.add(message_id, place, neutral(text), style)

    def _finish(self, event: MessageFinishedEvent, place: Place | None) -> None:
        message_id = event.data.message_id
        began_here = message_id in self._roles or not self._joins_midway
        self._roles.setdefault(message_id, event.data.role)
        if message_id not in self._spoken and began_here:
            for part in event.data.parts:
                if part.reasoning:
                    self._speak(message_id, place, part.reasoning, _REASONING_STYLE)
                elif part.text:
                    self._speak(message_id, place, part.text)
        self._speech.finish(message_id)
        self._spoken.discard(message_id)
        self._roles.pop(message_id, None)
