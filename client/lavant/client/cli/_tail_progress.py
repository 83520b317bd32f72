"""Shows how far a run is: bars, rounds, tokens so far."""

from rich.text import Text

from lavant.client._events import ProgressReportedEvent, StepFinishedEvent
from lavant.client.cli._screen import Line
from lavant.client.cli._tail_live import Bar, Live
from lavant.client.cli._tail_words import joined, tokens
from lavant.client.cli._untrusted import neutral_line

_ROWS = "rows"


class Progress:
    """The bars of a run, by step and label, and its tokens so far."""

    def __init__(self, live: Live, *, shows_bars: bool) -> None:
        self._live = live
        self._shows_bars = shows_bars
        self._reports_usage = False
        self._complete: dict[str, Bar] = {}
        self._rows = 0
        self._label = ""

    def expect_rows(self, count: int) -> None:
        """Begin an evaluation's bar."""
        if count > 0:
            self._live.bars[_ROWS] = Bar(_ROWS, 0, count)

    def finish_row(self) -> Line | None:
        """Count a row; the evaluation's own reports may be ahead."""
        self._rows += 1
        rows = self._live.bars.get(_ROWS)
        return self._advance(_ROWS, Bar(_ROWS, max(self._rows, rows.completed), rows.total)) if rows else None

    def finish_step(self, event: StepFinishedEvent) -> None:
        """Count a step's tokens, unless the run itself reports what it used."""
        if not self._reports_usage:
            usage = event.proto.step_finished.usage
            self._live.usage.input_tokens += usage.input_tokens
            self._live.usage.output_tokens += usage.output_tokens

    def report(self, event: ProgressReportedEvent) -> Line | None:
        """Take what a run reports; returns the line that says it, if one does."""
        progress = event.proto.progress_reported
        label = neutral_line(progress.label, 40)
        if progress.HasField("usage"):
            self._reports_usage = True
            self._live.usage = progress.usage
        self._live.iteration = progress.iteration or self._live.iteration
        previous, self._label = self._label, label
        if progress.HasField("completed") or progress.HasField("total"):
            key = f"{event.step_id}.{label}" if event.step_id else label
            return self._advance(key, Bar(label, progress.completed, progress.total))
        if label and label != previous:
            return Line(mark="…", style="dim", text=Text(label, "dim"))
        if progress.iteration and not label and not self._shows_bars:
            text = joined(f"round {progress.iteration}", tokens(progress.usage))
            return Line(mark="·", style="dim", text=Text(text, "dim"))
        return None

    def end(self) -> list[Line]:
        """Return how far it came with what it did not complete."""
        lines = [_line(bar) for bar in self._live.bars.values()]
        self._live.bars.clear()
        return lines

    def _advance(self, key: str, bar: Bar) -> Line | None:
        """Move a bar; where bars are not visible, each tenth of it gets a line."""
        if self._complete.get(key) == bar:
            return None
        before = self._live.bars.pop(key, None)
        (self._complete if bar.is_complete else self._live.bars)[key] = bar
        passed = before is None or int(bar.part * 10) > int(before.part * 10) or (bar.total <= 0 and bar != before)
        return _line(bar) if bar.is_complete or (passed and not self._shows_bars) else None


def _line(bar: Bar) -> Line:
    text = Text(f"{bar.label}  {bar}" if bar.label else str(bar), "dim")
    return Line(mark="✓", style="green", text=text) if bar.is_complete else Line(mark="·", style="dim", text=text)
