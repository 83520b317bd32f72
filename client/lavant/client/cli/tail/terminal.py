"""The screen for terminals: complete lines scroll up, above a live region that shows what runs at present."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lavant.client.cli.cells import cells, cut, wrap
from lavant.client.cli.tail.model import Activity, Bar, Status
from lavant.client.cli.tail.screen import Line
from lavant.client.cli.tail.text import joined, seconds, tokens

_WIDEST = 100
_INDENT = "  "
_DEEPEST = 12
_MOST_ACTIVITIES = 8
_BAR_WIDTH = 30
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_SECOND = 10


class TerminalScreen:
    """Screen that collects lines and text until `refresh`, so that many cost little more than one; use with `with`.

    `now` is the clock for the duration of activities. The last line of an open text is redrawn until it is full. No
    line is wider than the terminal, as the live region counts on that.
    """

    shows_what_runs = True

    def __init__(self, console: Console, status: Status, now: Callable[[], float]) -> None:
        self._status = status
        self._console = console
        self._now = now
        self._kept: list[Text] = []
        self._open: str | None = None
        self._depth = 0
        self._style = ""
        self._heading = True
        self._apart = False
        self._region = Live(
            get_renderable=lambda: Group(*self._rows()),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._region.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end_text()
        self._status = Status()
        self.refresh()
        self._region.stop()

    def refresh(self) -> None:
        """Show what was collected, and the present status."""
        if self._kept:
            kept, self._kept = self._kept, []
            self._console.print(Group(*kept))
        else:
            self._region.refresh()

    def line(self, line: Line) -> None:
        """Collect a line; its text is cut if it does not fit, its aside is at the right."""
        self.end_text()
        if self._apart or line.apart:
            self._kept.append(Text())
        self._apart, self._heading = False, line.heading
        indent = _indent(line.depth)
        head = Text(indent, no_wrap=True).append(f"{line.mark} ", line.style).append_text(line.text)
        self._kept.append(_spread(head, line.aside, self._width))
        below = indent + _INDENT
        if line.note:
            self._kept.append(cut(Text(f"{below}└ {line.note}", "dim"), self._width))
        for paragraph in line.body.splitlines():
            self._keep_wrapped(below, wrap(paragraph, self._width - len(below)), line.style)

    def text(self, depth: int, text: str, style: str = "") -> None:
        """Collect more of the open text, wrapped between words."""
        if self._open is None:
            text = text.lstrip("\n")
            if not text:
                return
            if not self._heading:
                self._kept.append(Text())
            self._open = ""
        self._depth, self._style = depth, style
        indent = _indent(depth)
        *whole, last = (self._open + text).split("\n")
        for paragraph in whole:
            self._keep_wrapped(indent, wrap(paragraph, self._width - len(indent)), style)
        *full, self._open = wrap(last, self._width - len(indent))
        self._keep_wrapped(indent, full, style)

    def end_text(self) -> None:
        """Collect the last line of the open text."""
        if self._open is not None:
            if self._open.strip():
                self._keep_wrapped(_indent(self._depth), [self._open], self._style)
            self._open, self._heading, self._apart = None, False, True

    @property
    def _width(self) -> int:
        return self._console.width

    def _keep_wrapped(self, indent: str, lines: list[str], style: str) -> None:
        self._kept += [cut(Text(f"{indent}{line}".rstrip(), style), self._width) for line in lines]

    def _rows(self) -> Iterator[Text]:
        now = self._now()
        if self._open:
            yield cut(Text(f"{_indent(self._depth)}{self._open}".rstrip(), self._style), self._width)
        if not self._status.state:
            return
        yield Text()
        activities = list(self._status.activities.values())
        hidden = len(activities) - _MOST_ACTIVITIES
        for activity in activities[-_MOST_ACTIVITIES:]:
            yield self._activity(activity, now)
        if hidden > 0:
            yield Text(f"{_INDENT}and {hidden} more", "dim")
        for bar in list(self._status.bars.values())[-_MOST_ACTIVITIES:]:
            yield self._bar(bar)
        yield self._status_line(now)

    def _activity(self, activity: Activity, now: float) -> Text:
        head = Text(_indent(activity.depth)).append(f"{_frame(now)} ", "cyan").append_text(activity.title)
        return _spread(head, _since(activity.began, now), self._width)

    def _bar(self, bar: Bar) -> Text:
        text = Text(f"{bar.label}  " if bar.label else "")
        if bar.total > 0:
            width = min(_BAR_WIDTH, max(0, self._width - cells(f"{bar.label}{bar}") - 6))
            done = round(bar.fraction * width)
            text.append("━" * done, "cyan").append("─" * (width - done) + "  ", "dim")
        return cut(text.append(str(bar), "bold"), self._width)

    def _status_line(self, now: float) -> Text:
        status = self._status
        head = Text(f"{_frame(now)} ", "bold cyan").append(status.state, "bold")
        began = _since(status.began, now) if status.began else ""
        head.append(f"  {began}" if began else "", "dim")
        return _spread(
            head, joined(f"round {status.iteration}" if status.iteration else "", tokens(status.usage)), self._width
        )


def _indent(depth: int) -> str:
    return _INDENT * min(depth, _DEEPEST)


def _frame(now: float) -> str:
    return _SPINNER[int(now * _FRAMES_PER_SECOND) % len(_SPINNER)]


def _since(began: float, now: float) -> str:
    return seconds(max(0.0, now - began))


def _spread(head: Text, aside: str, width: int) -> Text:
    """Return a line with its aside at the right, or at 100 columns; the head is cut if both do not fit."""
    if not aside:
        return cut(head, width)
    right = min(width, _WIDEST)
    room = max(1, right - cells(aside) - 2)
    head = cut(head, room)
    return cut(head.append(" " * (right - cells(aside) - cells(head.plain))).append(aside, "not bold dim"), width)
