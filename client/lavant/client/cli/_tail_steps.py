"""Shows steps and tool calls: what begins, what ends, and how."""

from rich.text import Text

from lavant.client import Event
from lavant.client._events import (
    StepFinishedEvent,
    StepStartedEvent,
    ToolCallFinishedEvent,
    ToolCallStartedEvent,
)
from lavant.client.cli._screen import Line, Screen
from lavant.client.cli._tail_live import Activity, Live
from lavant.client.cli._tail_outline import Outline, Place
from lavant.client.cli._tail_words import arguments, duration_of, error_text, joined, tokens, value_line
from lavant.client.cli._untrusted import neutral_line
from lavant.v1.event_pb2 import StepKind, ToolCallOutcome
from lavant.v1.run_pb2 import RunState

_LONGEST_NAME = 60
_SEE_THROUGH = {StepKind.STEP_KIND_MODEL_REQUEST, StepKind.STEP_KIND_TOOL}
# Short work that seldom holds anything: where running work is visible anyhow, one line when it ends is enough.
_BRIEF = {StepKind.STEP_KIND_RETRIEVAL, StepKind.STEP_KIND_GUARDRAIL, StepKind.STEP_KIND_EVALUATOR}
_MARKS = {
    ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED: ("✓", "green"),
    ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED: ("↻", "yellow"),
}
_FAILED = ("✗", "red")


class Steps:
    """The steps and tool calls of a run, by their ids."""

    def __init__(self, outline: Outline, live: Live) -> None:
        self._outline = outline
        self._live = live
        self._steps: dict[str, Place] = {}
        self._kinds: dict[str, StepKind.ValueType] = {}
        self._calls: dict[str, Place] = {}

    def place_of(self, event: Event) -> Place | None:
        """Return the step that an event belongs to; None: the run itself, or a step that was not seen."""
        return self._steps.get(event.step_id)

    def step(self, step_id: str) -> Place | None:
        """Return a step that goes on."""
        return self._steps.get(step_id)

    def call(self, tool_call_id: str) -> Place | None:
        """Return a tool call that goes on."""
        return self._calls.get(tool_call_id)

    def start_step(self, screen: Screen, event: StepStartedEvent) -> None:
        """Show that a step began."""
        started = event.proto.step_started
        again = f"attempt {started.attempt}" if started.attempt > 1 else ""
        kind = "" if started.kind == StepKind.STEP_KIND_WORKFLOW else _kind_name(started.kind)
        place = Place(
            parent=self._steps.get(started.parent_step_id or event.step_id),
            name=neutral_line(started.name, _LONGEST_NAME) or "step",
            kind=joined(kind, again),
            see_through=started.kind in _SEE_THROUGH,
        )
        self._steps[started.step_id] = place
        self._kinds[started.step_id] = started.kind
        if place.see_through or (started.kind in _BRIEF and screen.shows_what_runs):
            self._begin(started.step_id, place, event)
            if again:
                depth = self._outline.enter(screen, place.parent)
                screen.line(Line(depth=depth, mark="↻", style="yellow", text=Text(f"{place.name} {again}", "dim")))
        else:
            self._outline.announce(screen, place)

    def finish_step(self, screen: Screen, event: StepFinishedEvent) -> None:
        """Show how a step ended. A tool's step says nothing that its call did not say."""
        finished = event.proto.step_finished
        self._live.activities.pop(finished.step_id, None)
        place = self._steps.pop(finished.step_id, None) or Place(parent=self.place_of(event), name="step")
        kind = self._kinds.pop(finished.step_id, StepKind.STEP_KIND_UNSPECIFIED)
        if place.holder is not None:
            return
        failed = finished.state not in (RunState.RUN_STATE_UNSPECIFIED, RunState.RUN_STATE_SUCCEEDED)
        is_request = kind == StepKind.STEP_KIND_MODEL_REQUEST
        mark, style = _FAILED if failed else ("·", "dim") if is_request else ("✓", "green")
        screen.line(
            Line(
                depth=self._outline.enter(screen, place.parent),
                mark=mark,
                style=style,
                text=Text(place.name, style="dim" if is_request else "bold"),
                aside=joined(tokens(finished.usage), duration_of(finished)),
                body=error_text(finished.error) if failed else "",
            )
        )

    def start_call(self, screen: Screen, event: ToolCallStartedEvent) -> None:
        """Show that a tool is called."""
        call = event.proto.tool_call_started.call
        step = self.place_of(event)
        place = Place(
            parent=step,
            mark="→",
            name=neutral_line(call.tool_name, _LONGEST_NAME) or "tool",
            detail=arguments(call.arguments_json),
        )
        if step is not None and self._kinds[event.step_id] == StepKind.STEP_KIND_TOOL and step.holder is None:
            place.parent, step.holder = step.parent, place
            self._live.activities.pop(event.step_id, None)
        self._calls[call.tool_call_id] = place
        self._begin(call.tool_call_id, place, event)
        if not screen.shows_what_runs:
            self._outline.announce(screen, place)

    def finish_call(self, screen: Screen, event: ToolCallFinishedEvent) -> None:
        """Show how a tool call ended; what it was given only if that was not shown yet."""
        finished = event.proto.tool_call_finished
        self._live.activities.pop(finished.tool_call_id, None)
        place = self._calls.pop(finished.tool_call_id, None) or Place(
            parent=self.place_of(event), name=neutral_line(finished.tool_name, _LONGEST_NAME) or "tool"
        )
        mark, style = _MARKS.get(finished.outcome, _FAILED)
        succeeded = finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        denied = "denied" if finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED else ""
        screen.line(
            Line(
                depth=self._outline.enter(screen, place.parent),
                mark=mark,
                style=style,
                text=Text(place.name, style="bold") if place.announced else place.title,
                aside=joined(denied, duration_of(finished)),
                note=value_line(finished.result_json) if succeeded else "",
                body="" if succeeded else error_text(finished.error),
            )
        )

    def _begin(self, key: str, place: Place, event: Event) -> None:
        depth = len(place.parent.path()) if place.parent else 0
        self._live.activities[key] = Activity(place.title, depth, moment(event))


def moment(event: Event) -> float:
    """Return when an event happened, in seconds since 1970; whatever its producer's clock said."""
    time = event.proto.event_time
    return time.seconds + time.nanos / 1e9


def _kind_name(kind: "StepKind.ValueType") -> str:
    if kind not in StepKind.values() or kind == StepKind.STEP_KIND_UNSPECIFIED:
        return ""
    return StepKind.Name(kind).removeprefix("STEP_KIND_").lower().replace("_", " ")
