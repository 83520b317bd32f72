"""Steps, tool calls and progress of a run, as lines on a screen."""

from rich.text import Text

from lavant.client import Event
from lavant.client.cli.tail.model import Activity, Bar, Node, Outline, Status
from lavant.client.cli.tail.screen import Line, Screen
from lavant.client.cli.tail.text import arguments, duration_of, error_text, joined, tokens, value_line
from lavant.client.cli.untrusted import neutral_line
from lavant.client.events import (
    ProgressReportedEvent,
    StepFinishedEvent,
    StepStartedEvent,
    ToolCallFinishedEvent,
    ToolCallStartedEvent,
)
from lavant.v1.event_pb2 import StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

_ROWS = "rows"
_LONGEST_NAME = 60
_SEE_THROUGH = {StepKind.STEP_KIND_MODEL_REQUEST, StepKind.STEP_KIND_TOOL}
# Short steps that seldom contain others: where running steps are visible, one line at their end is enough.
_BRIEF = {StepKind.STEP_KIND_RETRIEVAL, StepKind.STEP_KIND_GUARDRAIL, StepKind.STEP_KIND_EVALUATOR}
_MARKS = {
    ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED: ("✓", "green"),
    ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED: ("↻", "yellow"),
}
_FAILED = ("✗", "red")


class Steps:
    """The steps and tool calls of a run, by their ids."""

    def __init__(self, outline: Outline, status: Status) -> None:
        self._outline = outline
        self._status = status
        self._steps: dict[str, Node] = {}
        self._kinds: dict[str, StepKind.ValueType] = {}
        self._calls: dict[str, Node] = {}

    def node_of(self, event: Event) -> Node | None:
        """Return the step of an event; None for the run itself, or a step that was not seen."""
        return self._steps.get(event.step_id)

    def step(self, step_id: str) -> Node | None:
        """Return a step that has not ended."""
        return self._steps.get(step_id)

    def call(self, tool_call_id: str) -> Node | None:
        """Return a tool call that has not ended."""
        return self._calls.get(tool_call_id)

    def start_step(self, screen: Screen, event: StepStartedEvent) -> None:
        """Show the start of a step."""
        started = event.proto.step_started
        again = f"attempt {started.attempt}" if started.attempt > 1 else ""
        kind = "" if started.kind == StepKind.STEP_KIND_WORKFLOW else _kind_name(started.kind)
        node = Node(
            parent=self._steps.get(started.parent_step_id or event.step_id),
            name=neutral_line(started.name, _LONGEST_NAME) or "step",
            kind=joined(kind, again),
            see_through=started.kind in _SEE_THROUGH,
        )
        self._steps[started.step_id] = node
        self._kinds[started.step_id] = started.kind
        if node.see_through or (started.kind in _BRIEF and screen.shows_what_runs):
            self._begin(started.step_id, node, event)
            if again:
                depth = self._outline.enter(screen, node.parent)
                screen.line(Line(depth=depth, mark="↻", style="yellow", text=Text(f"{node.name} {again}", "dim")))
        else:
            self._outline.announce(screen, node)

    def finish_step(self, screen: Screen, event: StepFinishedEvent) -> None:
        """Show the end of a step; that of a tool's step is shown by its call."""
        finished = event.proto.step_finished
        self._status.activities.pop(finished.step_id, None)
        node = self._steps.pop(finished.step_id, None) or Node(parent=self.node_of(event), name="step")
        kind = self._kinds.pop(finished.step_id, StepKind.STEP_KIND_UNSPECIFIED)
        if node.holder is not None:
            return
        failed = finished.state not in (RunState.RUN_STATE_UNSPECIFIED, RunState.RUN_STATE_SUCCEEDED)
        is_request = kind == StepKind.STEP_KIND_MODEL_REQUEST
        mark, style = _FAILED if failed else ("·", "dim") if is_request else ("✓", "green")
        screen.line(
            Line(
                depth=self._outline.enter(screen, node.parent),
                mark=mark,
                style=style,
                text=Text(node.name, style="dim" if is_request else "bold"),
                aside=joined(tokens(finished.usage), duration_of(finished)),
                body=error_text(finished.error) if failed else "",
            )
        )

    def start_call(self, screen: Screen, event: ToolCallStartedEvent) -> None:
        """Show the start of a tool call."""
        call = event.proto.tool_call_started.call
        step = self.node_of(event)
        node = Node(
            parent=step,
            mark="→",
            name=neutral_line(call.tool_name, _LONGEST_NAME) or "tool",
            detail=arguments(call.arguments_json),
        )
        if step is not None and self._kinds[event.step_id] == StepKind.STEP_KIND_TOOL and step.holder is None:
            node.parent, step.holder = step.parent, node
            self._status.activities.pop(event.step_id, None)
        self._calls[call.tool_call_id] = node
        self._begin(call.tool_call_id, node, event)
        if not screen.shows_what_runs:
            self._outline.announce(screen, node)

    def finish_call(self, screen: Screen, event: ToolCallFinishedEvent) -> None:
        """Show the end of a tool call, with its arguments if they were not shown before."""
        finished = event.proto.tool_call_finished
        self._status.activities.pop(finished.tool_call_id, None)
        node = self._calls.pop(finished.tool_call_id, None) or Node(
            parent=self.node_of(event), name=neutral_line(finished.tool_name, _LONGEST_NAME) or "tool"
        )
        mark, style = _MARKS.get(finished.outcome, _FAILED)
        succeeded = finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        denied = "denied" if finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED else ""
        screen.line(
            Line(
                depth=self._outline.enter(screen, node.parent),
                mark=mark,
                style=style,
                text=Text(node.name, style="bold") if node.announced else node.title,
                aside=joined(denied, duration_of(finished)),
                note=value_line(finished.result_json) if succeeded else "",
                body="" if succeeded else error_text(finished.error),
            )
        )

    def _begin(self, key: str, node: Node, event: Event) -> None:
        depth = len(node.parent.path()) if node.parent else 0
        self._status.activities[key] = Activity(node.title, depth, moment(event))


def moment(event: Event) -> float:
    """Return an event's time by its producer's clock, in seconds since 1970."""
    time = event.proto.event_time
    return time.seconds + time.nanos / 1e9


def _kind_name(kind: "StepKind.ValueType") -> str:
    if kind not in StepKind.values() or kind == StepKind.STEP_KIND_UNSPECIFIED:
        return ""
    return StepKind.Name(kind).removeprefix("STEP_KIND_").lower().replace("_", " ")


class ProgressView:
    """The bars of a run, by step and label, and its usage so far."""

    def __init__(self, status: Status, *, shows_bars: bool) -> None:
        self._status = status
        self._shows_bars = shows_bars
        self._reports_usage = False
        self._complete: dict[str, Bar] = {}
        self._rows = 0
        self._label = ""

    def expect_rows(self, count: int) -> None:
        """Start an evaluation's bar."""
        if count > 0:
            self._status.bars[_ROWS] = Bar(_ROWS, 0, count)

    def finish_row(self) -> Line | None:
        """Count a row; the evaluation's own progress reports may be ahead."""
        self._rows += 1
        rows = self._status.bars.get(_ROWS)
        return self._advance(_ROWS, Bar(_ROWS, max(self._rows, rows.completed), rows.total)) if rows else None

    def finish_step(self, event: StepFinishedEvent) -> None:
        """Count a step's tokens, unless the run itself reports its usage."""
        if not self._reports_usage:
            usage = event.proto.step_finished.usage
            self._status.usage.input_tokens += usage.input_tokens
            self._status.usage.output_tokens += usage.output_tokens

    def report(self, event: ProgressReportedEvent) -> Line | None:
        """Record a progress report; return its line, if it needs one."""
        progress = event.proto.progress_reported
        label = neutral_line(progress.label, 40)
        if progress.HasField("usage"):
            self._reports_usage = True
            self._status.usage = progress.usage
        self._status.iteration = progress.iteration or self._status.iteration
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
        """Return the lines of bars that are not complete."""
        lines = [_line(bar) for bar in self._status.bars.values()]
        self._status.bars.clear()
        return lines

    def _advance(self, key: str, bar: Bar) -> Line | None:
        """Move a bar; where bars are not visible, each tenth of it needs a line."""
        if self._complete.get(key) == bar:
            return None
        before = self._status.bars.pop(key, None)
        (self._complete if bar.is_complete else self._status.bars)[key] = bar
        passed = (
            before is None or int(bar.fraction * 10) > int(before.fraction * 10) or (bar.total <= 0 and bar != before)
        )
        return _line(bar) if bar.is_complete or (passed and not self._shows_bars) else None


def _line(bar: Bar) -> Line:
    text = Text(f"{bar.label}  {bar}" if bar.label else str(bar), "dim")
    return Line(mark="✓", style="green", text=text) if bar.is_complete else Line(mark="·", style="dim", text=text)
