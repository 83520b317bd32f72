"""The view of a run: its events as lines and text on a screen."""

from dataclasses import replace

from rich.text import Text

from lavant.client import Event, Role, Run, RunKind, RunResult, RunState
from lavant.client.cli.tail.model import Node, Outline, Speech, Status
from lavant.client.cli.tail.screen import HiddenScreen, Line, Screen
from lavant.client.cli.tail.steps import ProgressView, Steps, moment
from lavant.client.cli.tail.text import (
    alert_line,
    arguments,
    audit_line,
    error_text,
    joined,
    plan_text,
    row_line,
    scores_text,
    seconds,
    summary_lines,
    tokens,
    value_line,
)
from lavant.client.cli.untrusted import neutral, neutral_line
from lavant.client.events import (
    ArtifactUpdatedEvent,
    InputRequestedEvent,
    MessageFinishedEvent,
    RowFinishedEvent,
    RunStartedEvent,
)
from lavant.v1.run_pb2 import TokenUsage

_LONGEST_INPUT = 300
_LONGEST_PROMPT = 2_000
_ASIDE_STYLE = "dim"
_OUTCOMES = {
    RunState.SUCCEEDED: ("✓", "bold green"),
    RunState.CANCELLED: ("■", "bold yellow"),
}
_UNSUCCESSFUL = ("✗", "bold red")
_REASONING_STYLE = "dim italic"
_OTHERS_STYLE = "dim"
_OTHERS = {Role.USER, Role.SYSTEM, Role.TOOL}


class MessageView:
    """The unfinished messages of a run: shown as they arrive, or as a whole if their deltas were not seen.

    `joins_midway`: earlier deltas of a message may have been shown elsewhere, so that a message is shown as a whole
    only if its start was seen.
    """

    def __init__(self, speech: Speech, *, joins_midway: bool) -> None:
        self._speech = speech
        self._joins_midway = joins_midway
        self._roles: dict[str, Role] = {}
        self._spoken: set[str] = set()

    def show(self, event: Event, node: Node | None) -> bool:
        """Show an event of a message; return whether it is one."""
        match event.type:
            case "text_delta":
                self._speak(event.data.message_id, node, event.data.text)
            case "reasoning_delta":
                self._speak(event.data.message_id, node, event.data.text, _REASONING_STYLE)
            case "message_started":
                self._roles[event.data.message_id] = event.data.role
            case "message_finished":
                self._finish(event, node)
            case _:
                return False
        return True

    def _speak(self, message_id: str, node: Node | None, text: str, style: str = "") -> None:
        self._spoken.add(message_id)
        if self._roles.get(message_id) in _OTHERS:
            style = _OTHERS_STYLE
        self._speech.add(message_id, node, neutral(text), style)

    def _finish(self, event: MessageFinishedEvent, node: Node | None) -> None:
        message_id = event.data.message_id
        began_here = message_id in self._roles or not self._joins_midway
        self._roles.setdefault(message_id, event.data.role)
        if message_id not in self._spoken and began_here:
            for part in event.data.parts:
                if part.reasoning:
                    self._speak(message_id, node, part.reasoning, _REASONING_STYLE)
                elif part.text:
                    self._speak(message_id, node, part.text)
        self._speech.finish(message_id)
        self._spoken.discard(message_id)
        self._roles.pop(message_id, None)


class TailView:
    """Shows a run event by event, and keeps `status` up to date.

    Memory is bounded by what is unfinished. All text is neutralised before it reaches the screen. With `joins_midway`,
    what precedes the first event may have been shown elsewhere.
    """

    def __init__(self, screen: Screen, status: Status, *, joins_midway: bool = False) -> None:
        self._status = status
        self._screen = screen
        self._outline = Outline()
        self._steps = Steps(self._outline, self._status)
        self._progress = ProgressView(status, shows_bars=screen.shows_what_runs)
        self._speech = Speech(self._say, lambda: self._screen.end_text())
        self._messages = MessageView(self._speech, joins_midway=joins_midway)

    def wait(self) -> None:
        """Show that the run does not exist yet."""
        self._status.state = "waiting for the run"

    def open(self, run: Run) -> None:
        """Show which run this is."""
        self._status.state = "" if run.has_ended else _words(run.state)
        self._status.began = run.created.timestamp() if run.created else None
        kind = "evaluation" if run.kind is RunKind.EVALUATION else ""
        name = Text(neutral_line(run.name, 60) or "run", style="bold")
        self._line("▶", "bold cyan", name.append(f"  {kind}" if kind else "", "not bold dim"), aside=run.id)

    def skip(self, event: Event) -> None:
        """Process an event without showing it, so that later events are shown in their context."""
        screen, self._screen = self._screen, HiddenScreen()
        try:
            self.show(event)
            self._speech.finish_all()
        finally:
            self._screen = screen
            self._outline.forget()

    def show(self, event: Event) -> None:
        """Show an event."""
        node = self._steps.node_of(event)
        if self._messages.show(event, node):
            return
        match event.type:
            case "tool_output_delta":
                call = self._steps.call(event.data.tool_call_id) or node
                self._speech.add(event.data.tool_call_id, call, neutral(event.data.text), _ASIDE_STYLE)
            case "tool_arguments_delta" | "unknown":
                return
            case _:
                self._speech.interrupt(node)
                self._show_happening(event, node)

    def end(self, result: RunResult | None, count: int) -> None:
        """Show the outcome as the last line; without a result, the present state."""
        self._speech.finish_all()
        self._outline.enter(self._screen, None)
        self._status.activities.clear()
        for line in self._progress.end():
            self._screen.line(line)
        if result is None:
            state = self._status.state or "not started"
            self._line("…", "bold cyan", Text(state, "bold"), aside=f"{count:,} events so far", apart=True)
        else:
            self._end(result)

    def _show_happening(self, event: Event, node: Node | None) -> None:
        match event.type:
            case "run_started":
                self._start(event)
            case "run_state_changed":
                state = _words(event.data.state)
                self._status.state = state
                self._line("·", "yellow", Text(joined(state, neutral_line(event.data.reason)), "yellow"), node)
            case "run_finished":
                self._status.state = ""
                output = event.proto.run_finished.output_json
                if output not in ("", "null") and not output.startswith('"'):
                    self._line("=", "green", Text(value_line(output)))
            case "step_started":
                # A retry: the text of the earlier attempt is over.
                self._interrupt(event.data.step_id)
                self._steps.start_step(self._screen, event)
            case "step_finished":
                self._interrupt(event.data.step_id)
                self._progress.finish_step(event)
                self._steps.finish_step(self._screen, event)
            case "tool_call_started":
                self._steps.start_call(self._screen, event)
            case "tool_call_finished":
                self._speech.finish(event.data.tool_call_id)
                self._steps.finish_call(self._screen, event)
            case "progress_reported":
                self._put(self._progress.report(event), node)
            case "row_finished":
                self._row(event)
            case _:
                self._show_other(event, node)

    def _show_other(self, event: Event, node: Node | None) -> None:
        match event.type:
            case "error_reported":
                self._line("!", "red", Text("error", "bold red"), node, body=error_text(event.data.error))
            case "input_requested":
                self._ask(event, node)
            case "input_resolved":
                answer = value_line(event.proto.input_resolved.answer_json)
                self._line("·", "magenta", Text("answered", "magenta"), node, note=answer)
            case "artifact_updated":
                self._artifact(event, node)
            case "score_recorded":
                run = Text(f"  of run {neutral_line(event.data.subject_run_id)}", "dim")
                self._line("·", "dim", scores_text([event.proto.score_recorded.score]).append_text(run), node)
            case "alert_changed":
                self._put(alert_line(event.data), node)
            case "audit_recorded":
                self._put(audit_line(event.data), node)
            case "custom":
                self._aside(neutral_line(event.data.name), event.proto.custom.value_json, node)
            case "state_snapshot":
                self._aside(joined("state", neutral_line(event.data.name)), event.proto.state_snapshot.value_json, node)
            case "state_delta":
                what = joined("state changed", neutral_line(event.data.name))
                self._aside(what, event.proto.state_delta.patch_json, node)

    def _start(self, event: RunStartedEvent) -> None:
        started = event.proto.run_started
        self._status.state, self._status.began = "running", moment(event)
        plan = plan_text(started.evaluation) if started.HasField("evaluation") else ""
        if plan:
            self._line("·", "dim", Text(plan, "dim"))
        self._progress.expect_rows(started.evaluation.row_count)
        is_object = started.input_json.startswith("{")
        asked = arguments(started.input_json, _LONGEST_INPUT) if is_object else value_line(started.input_json)
        about = joined(neutral_line(started.model, 40), neutral_line(started.version, 40))
        if asked:
            self._line("»", "cyan", Text(asked), aside=about)
        elif about:
            self._line("·", "dim", Text(about, "dim"))

    def _interrupt(self, step_id: str) -> None:
        if (step := self._steps.step(step_id)) is not None:
            self._speech.interrupt(step)

    def _row(self, event: RowFinishedEvent) -> None:
        self._put(row_line(event.proto.row_finished))
        self._put(self._progress.finish_row())

    def _ask(self, event: InputRequestedEvent, node: Node | None) -> None:
        self._line(
            "?", "magenta", Text("input requested", "magenta"), node, body=neutral(event.data.prompt[:_LONGEST_PROMPT])
        )

    def _artifact(self, event: ArtifactUpdatedEvent, node: Node | None) -> None:
        artifact = event.data
        size = f"{len(artifact.data):,} bytes" if artifact.data is not None else ""
        text = Text(neutral_line(artifact.name or artifact.artifact_id))
        text.append(f"  {joined(neutral_line(artifact.media_type), size)}", "dim")
        self._line("+", "blue", text, node, note=neutral_line(artifact.uri))

    def _aside(self, what: str, value_json: str, node: Node | None) -> None:
        value = value_line(value_json)
        self._line("·", "dim", Text(f"{what}  {value}" if value else what, "dim"), node)

    def _end(self, result: RunResult) -> None:
        mark, style = _OUTCOMES.get(result.state, _UNSUCCESSFUL)
        for line in summary_lines(result.evaluation) if result.evaluation else ():
            self._screen.line(line)
        if result.error is not None:
            kind = f"{result.error.type}: " if result.error.type else ""
            self._line("!", "red", Text("the run's error", "bold red"), body=neutral(f"{kind}{result.error.message}"))
        took = f" after {seconds(result.duration.total_seconds())}" if result.duration is not None else ""
        usage = tokens(result.usage.to_proto() if result.usage else TokenUsage())
        self._line(mark, style, Text(f"{_words(result.state)}{took}", style), aside=usage, apart=True)

    def _say(self, node: Node | None, text: str, style: str) -> None:
        self._screen.text(self._outline.enter(self._screen, node), text, style)

    def _line(
        self,
        mark: str,
        style: str,
        text: Text,
        node: Node | None = None,
        *,
        aside: str = "",
        note: str = "",
        body: str = "",
        apart: bool = False,
    ) -> None:
        self._put(Line(mark=mark, style=style, text=text, aside=aside, note=note, body=body, apart=apart), node)

    def _put(self, line: Line | None, node: Node | None = None) -> None:
        if line is not None:
            self._screen.line(replace(line, depth=self._outline.enter(self._screen, node)))


def _words(state: RunState) -> str:
    return state.value.replace("_", " ")
