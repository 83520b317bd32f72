"""Where in a run something happens, and how a reader is told: by indentation, and by names where it jumps."""

from dataclasses import dataclass, field

from rich.text import Text

from lavant.client.cli._screen import Line, Screen


@dataclass(eq=False, slots=True, kw_only=True)
class Place:
    """A step or a tool call: part of another, or of the run itself.

    One that is `see_through` has no line of its own: what it holds shows as its parent's. `holder` stands in
    for it once set: the call that a tool's step is about.
    """

    parent: "Place | None"
    mark: str = "▸"
    style: str = "bold cyan"
    name: str = ""
    detail: str = ""
    kind: str = ""
    see_through: bool = False
    announced: bool = False
    holder: "Place | None" = field(default=None)

    @property
    def title(self) -> Text:
        """Its name, and what it was given."""
        text = Text(self.name, style="bold")
        return text.append(f"  {self.detail}", "not bold dim") if self.detail else text

    def path(self) -> "list[Place]":
        """Return the places with lines of their own that lead to it, and it if it has one; the outermost first."""
        path: list[Place] = []
        place: Place | None = self
        while place is not None:
            place = place.holder or place
            if not place.see_through:
                path.append(place)
            place = place.parent
        return path[::-1]


class Outline:
    """Keeps track of the place that a screen's last line is in."""

    def __init__(self) -> None:
        self._shown: list[Place] = []

    def enter(self, screen: Screen, place: Place | None) -> int:
        """Make a place the last line's: shows headings where they are missing. Returns the depth inside of it."""
        path = place.path() if place else []
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

    def announce(self, screen: Screen, place: Place) -> None:
        """Show a place's heading, within its parent."""
        depth = self.enter(screen, place.parent)
        self._announce(screen, place, depth)
        self._shown.append(place)

    def forget(self) -> None:
        """Take it that the screen's last line is nowhere."""
        self._shown.clear()

    def _announce(self, screen: Screen, place: Place, depth: int) -> None:
        screen.line(
            Line(depth=depth, mark=place.mark, style=place.style, text=place.title, aside=place.kind, heading=True)
        )
        place.announced = True
