"""Whose words are shown: one speaker's at a time, as they come; those of others wait for their turn."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lavant.client.cli._tail_outline import Place

_LONGEST_WAITING = 2_000

Say = Callable[[Place | None, str, str], None]


@dataclass(slots=True)
class _Waiting:
    place: Place | None
    pieces: list[tuple[str, str]] = field(default_factory=list)
    length: int = 0


class Speech:
    """Gives a floor to the messages of steps that work side by side, so that their words do not mix.

    The speaker keeps it until it ends, is interrupted, or another has much to say.
    """

    def __init__(self, say: Say, pause: Callable[[], None]) -> None:
        self._say = say
        self._pause = pause
        self._speaker: str | None = None
        self._style = ""
        self._place: Place | None = None
        self._waiting: dict[str, _Waiting] = {}

    def add(self, speaker: str, place: Place | None, text: str, style: str) -> None:
        """Take a speaker's words, to show them now or later."""
        if self._speaker is None:
            self._begin(speaker, place)
        if speaker == self._speaker:
            self._utter(text, style)
            return
        waiting = self._waiting.setdefault(speaker, _Waiting(place))
        waiting.pieces.append((text, style))
        waiting.length += len(text)
        if waiting.length > _LONGEST_WAITING:
            self._yield_floor()
            self._speak_up(speaker)

    def finish(self, speaker: str) -> None:
        """Let a speaker end: it gives the floor to those who wait."""
        if speaker in self._waiting:
            self._yield_floor()
            self._speak_up(speaker)
        if speaker == self._speaker:
            self._yield_floor()
            self._next()

    def interrupt(self, place: Place | None) -> None:
        """End the words of the one who speaks in a place: something else happens there."""
        if self._speaker is not None and self._place is place:
            self._yield_floor()
            self._next()

    def finish_all(self) -> None:
        """Show all that waits."""
        self._yield_floor()
        for speaker in list(self._waiting):
            self._speak_up(speaker)
            self._yield_floor()

    def _begin(self, speaker: str, place: Place | None) -> None:
        self._speaker, self._place, self._style = speaker, place, ""

    def _yield_floor(self) -> None:
        if self._speaker is not None:
            self._speaker = None
            self._pause()

    def _next(self) -> None:
        if self._waiting:
            self._speak_up(next(iter(self._waiting)))

    def _speak_up(self, speaker: str) -> None:
        waiting = self._waiting.pop(speaker)
        self._begin(speaker, waiting.place)
        for text, style in waiting.pieces:
            self._utter(text, style)

    def _utter(self, text: str, style: str) -> None:
        if style != self._style:
            self._pause()
            self._style = style
        self._say(self._place, text, style)
