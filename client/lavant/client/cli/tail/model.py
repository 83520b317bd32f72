"""State of a tail: what runs at present, the outline of steps, and whose text is shown."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rich.text import Text

from lavant.client.cli.tail.screen import Line, Screen
from lavant.v1.run_pb2 import TokenUsage

_LONGEST_WAITING = 2_000

Say = Callable[["Node | None", str, str], None]


@dataclass(frozen=True, slots=True)
class Activity:
    """A step or tool call that has started and not ended; `began` is in seconds since 1970."""

    title: Text
    depth: int
    began: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Progress of something with a label; without a total, only a count."""

    label: str
    completed: int
    total: int

    @property
    def fraction(self) -> float:
        """The completed fraction, from 0 to 1."""
        return min(1.0, max(0, self.completed) / self.total) if self.total > 0 else 0.0

    @property
    def is_complete(self) -> bool:
        """Whether all of it is done."""
        return 0 < self.total <= self.completed

    def __str__(self) -> str:
        return f"{self.completed:,}/{self.total:,}  {self.fraction:.0%}" if self.total > 0 else f"{self.completed:,}"


@dataclass(slots=True)
class Status:
    """The present state of a run: its activities and bars by ID, its state, usage and iteration."""

    activities: dict[str, Activity] = field(default_factory=dict)
    bars: dict[str, Bar] = field(default_factory=dict)
    state: str = ""
    began: float | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    iteration: int = 0


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """A step or a tool call, within a parent or the run itself.

    One that is `see_through` has no heading: what is in it is shown in its parent. `holder` replaces it once set: the
    call that a tool's step is about.
    """

    parent: "Node | None"
    mark: str = "▸"
    style: str = "bold cyan"
    name: str = ""
    detail: str = ""
    kind: str = ""
    see_through: bool = False
    announced: bool = False
    holder: "Node | None" = field(default=None)

    @property
    def title(self) -> Text:
        """Its name and arguments."""
        text = Text(self.name, style="bold")
        return text.append(f"  {self.detail}", "not bold dim") if self.detail else text

    def path(self) -> "list[Node]":
        """Return the nodes with headings from the outermost one to this one."""
        path: list[Node] = []
        node: Node | None = self
        while node is not None:
            node = node.holder or node
            if not node.see_through:
                path.append(node)
            node = node.parent
        return path[::-1]


class Outline:
    """Headings on a screen, and the node that its last line is in."""

    def __init__(self) -> None:
        self._shown: list[Node] = []

    def enter(self, screen: Screen, node: Node | None) -> int:
        """Show the headings that lines in a node need; return their depth."""
        path = node.path() if node else []
        for depth, step in enumerate(path):
            if depth < len(self._shown) and self._shown[depth] is step:
                continue
            del self._shown[depth:]
            if step.announced:
                screen.line(Line(depth=depth, mark="┄", style="dim", text=Text(step.name, "dim"), heading=True))
            else:
                self._announce(screen, step, depth)
            self._shown.append(step)
        del self._shown[len(path) :]
        return len(path)

    def announce(self, screen: Screen, node: Node) -> None:
        """Show a node's heading, within its parent."""
        depth = self.enter(screen, node.parent)
        self._announce(screen, node, depth)
        self._shown.append(node)

    def forget(self) -> None:
        """Show all headings again before the next line."""
        self._shown.clear()

    def _announce(self, screen: Screen, node: Node, depth: int) -> None:
        screen.line(Line(depth=depth, mark=node.mark, style=node.style, text=node.title, aside=node.kind, heading=True))
        node.announced = True


@dataclass(slots=True)
class _Waiting:
    node: Node | None
    pieces: list[tuple[str, str]] = field(default_factory=list)
    length: int = 0


class Speech:
    """Text of messages that are generated at the same time, shown one message at a time.

    A message is shown until it ends, is interrupted, or another has much text waiting.
    """

    def __init__(self, say: Say, pause: Callable[[], None]) -> None:
        self._say = say
        self._pause = pause
        self._speaker: str | None = None
        self._style = ""
        self._node: Node | None = None
        self._waiting: dict[str, _Waiting] = {}

    def add(self, speaker: str, node: Node | None, text: str, style: str) -> None:
        """Add text of a speaker, to show it now or later."""
        if self._speaker is None:
            self._begin(speaker, node)
        if speaker == self._speaker:
            self._utter(text, style)
            return
        waiting = self._waiting.setdefault(speaker, _Waiting(node))
        waiting.pieces.append((text, style))
        waiting.length += len(text)
        if waiting.length > _LONGEST_WAITING:
            self._yield_floor()
            self._speak_up(speaker)

    def finish(self, speaker: str) -> None:
        """End a speaker's text, and show the next one that waits."""
        if speaker in self._waiting:
            self._yield_floor()
            self._speak_up(speaker)
        if speaker == self._speaker:
            self._yield_floor()
            self._next()

    def interrupt(self, node: Node | None) -> None:
        """End the text of the current speaker if it is in this node, where something else happens."""
        if self._speaker is not None and self._node is node:
            self._yield_floor()
            self._next()

    def finish_all(self) -> None:
        """Show all text that waits."""
        self._yield_floor()
        for speaker in list(self._waiting):
            self._speak_up(speaker)
            self._yield_floor()

    def _begin(self, speaker: str, node: Node | None) -> None:
        self._speaker, self._node, self._style = speaker, node, ""

    def _yield_floor(self) -> None:
        if self._speaker is not None:
            self._speaker = None
            self._pause()

    def _next(self) -> None:
        if self._waiting:
            self._speak_up(next(iter(self._waiting)))

    def _speak_up(self, speaker: str) -> None:
        waiting = self._waiting.pop(speaker)
        self._begin(speaker, waiting.node)
        for text, style in waiting.pieces:
            self._utter(text, style)

    def _utter(self, text: str, style: str) -> None:
        if style != self._style:
            self._pause()
            self._style = style
        self._say(self._node, text, style)
