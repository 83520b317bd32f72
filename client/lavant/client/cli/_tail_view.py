"""What a reader sees of a run: takes its events, and puts lines and text on a screen."""

from dataclasses import replace

from rich.text import Text

from lavant.client import Event, Run, RunKind, RunResult, RunState
from lavant.client._events import (
    ArtifactUpdatedEvent,
    InputRequestedEvent,
    RowFinishedEvent,
    RunStartedEvent,
)
from lavant.client.cli._screen import HiddenScreen, Line, Screen
from lavant.client.cli._tail_evaluation import plan_text, row_line, summary_lines
from lavant.client.cli._tail_live import Live
from lavant.client.cli._tail_messages import Messages
from lavant.client.cli._tail_outline import Outline, Place
from lavant.client.cli._tail_progress import Progress
from lavant.client.cli._tail_sampling import sampling_line
from lavant.client.cli._tail_speech import Speech
from lavant.client.cli._tail_steps import Steps, moment
from lavant.client.cli._tail_words import arguments, error_text, joined, scores_text, seconds, tokens, value_line
from lavant.client.cli._untrusted import neutral, neutral_line
from lavant.v1.run_pb2 import TokenUsage

_LONGEST_INPUT = 300
_LONGEST_PROMPT = 2_000
_ASIDE_STYLE = "dim"
_OUTCOMES = {
    RunState.SUCCEEDED: ("✓", "bold green"),
    RunState.CANCELLED: ("■", "bold yellow"),
}
_NOT_WELL = ("✗", "bold red")


class TailView:
    """Shows a run event by event; keeps `live` to what goes on at this moment.

    It keeps what is open, not what has passed. All text is neutral before it reaches the screen.
    `joins_midway` says that what came before the first event may have been shown elsewhere.
    """

    def __init__(self, screen: Screen, live: Live, *, joins_midway: bool = False) -> None:
        self._live = live
        self._screen = screen
        self._outline = Outline()
        self._steps = Steps(self._outline, self._live)
        self._progress = Progress(live, shows_bars=screen.shows_what_runs)
        self._speech = Speech(self._say, lambda: self._screen.end_text())
        self._messages = Messages(self._speech, joins_midway=joins_midway)

    def wait(self) -> None:
        """Show that there is no run yet."""
        self._live.state = "waiting for the run"

    def open(self, run: Run) -> None:
        """Show whose tail this is."""
        self._live.state = "" if run.has_ended else _words(run.state)
        self._live.began = run.created.timestamp() if run.created else None
        kind = "evaluation" if run.kind is RunKind.EVALUATION else ""
        name = Text(neutral_line(run.name, 60) or "run", style="bold")
        self._line("▶", "bold cyan", name.append(f"  {kind}" if kind else "", "not bold dim"), aside=run.id)

    def skip(self, event: Event) -> None:
        """Take an event without showing it, so that what follows is shown in its place."""
        screen, self._screen = self._screen, HiddenScreen()
        try:
            self.show(event)
            self._speech.finish_all()
        finally:
            self._screen = screen
            self._outline.forget()

    def show(self, event: Event) -> None:
        """Show an event."""
        place = self._steps.place_of(event)
        if self._messages.take(event, place):
            return
        match event.type:
            case "tool_output_delta":
                call = self._steps.call(event.data.tool_call_id) or place
                self._speech.add(event.data.tool_call_id, call, neutral(event.data.text), _ASIDE_STYLE)
            case "tool_arguments_delta" | "unknown":
                return
            case _:
                self._speech.interrupt(place)
                self._show_happening(event, place)

    def end(self, result: RunResult | None, count: int) -> None:
        """Show how the run ended, as the last line; or, without a result, that it goes on."""
        self._speech.finish_all()
        self._outline.enter(self._screen, None)
        self._live.activities.clear()
        for line in self._progress.end():
            self._screen.line(line)
        if result is None:
            state = self._live.state or "not started"
            self._line("…", "bold cyan", Text(state, "bold"), aside=f"{count:,} events so far", apart=True)
        else:
            self._end(result)

    def _show_happening(self, event: Event, place: Place | None) -> None:
        match event.type:
            case "run_started":
                self._start(event)
            case "run_state_changed":
                state = _words(event.data.state)
                self._live.state = state
                self._line("·", "yellow", Text(joined(state, neutral_line(event.data.reason)), "yellow"), place)
            case "run_finished":
                self._live.state = ""
                output = event.proto.run_finished.output_json
                if output not in ("", "null") and not output.startswith('"'):
                    self._line("=", "green", Text(value_line(output)))
            case "step_started":
                # Tried again: what its earlier attempt was saying is over.
                self._end_speech_of(event.data.step_id)
                self._steps.start_step(self._screen, event)
            case "step_finished":
                self._end_speech_of(event.data.step_id)
                self._progress.finish_step(event)
                self._steps.finish_step(self._screen, event)
            case "tool_call_started":
                self._steps.start_call(self._screen, event)
            case "tool_call_finished":
                self._speech.finish(event.data.tool_call_id)
                self._steps.finish_call(self._screen, event)
            case "progress_reported":
                self._put(self._progress.report(event), place)
            case "row_finished":
                self._row(event)
            case _:
                self._show_other(event, place)

    def _show_other(self, event: Event, place: Place | None) -> None:
        match event.type:
            case "error_reported":
                self._line("!", "red", Text("error", "bold red"), place, body=error_text(event.data.error))
            case "input_requested":
                self._ask(event, place)
            case "input_resolved":
                answer = value_line(event.proto.input_resolved.answer_json)
                self._line("·", "magenta", Text("answered", "magenta"), place, note=answer)
            case "artifact_updated":
                self._artifact(event, place)
            case "score_recorded":
                run = Text(f"  of run {neutral_line(event.data.subject_run_id)}", "dim")
                self._line("·", "dim", scores_text([event.proto.score_recorded.score]).append_text(run), place)
            case "samples_drawn" | "samples_leased" | "sample_returned" | "alert_changed":
                if (line := sampling_line(event)) is not None:
                    self._put(line, place)
            case "custom":
                self._aside(neutral_line(event.data.name), event.proto.custom.value_json, place)
            case "state_snapshot":
                self._aside(
                    joined("state", neutral_line(event.data.name)), event.proto.state_snapshot.value_json, place
                )
            case "state_delta":
                what = joined("state changed", neutral_line(event.data.name))
                self._aside(what, event.proto.state_delta.patch_json, place)

    def _start(self, event: RunStartedEvent) -> None:
        started = event.proto.run_started
        self._live.state, self._live.began = "running", moment(event)
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

    def _end_speech_of(self, step_id: str) -> None:
        if (step := self._steps.step(step_id)) is not None:
            self._speech.interrupt(step)

    def _row(self, event: RowFinishedEvent) -> None:
        self._put(row_line(event.proto.row_finished))
        self._put(self._progress.finish_row())

    def _ask(self, event: InputRequestedEvent, place: Place | None) -> None:
        self._line(
            "?", "magenta", Text("input requested", "magenta"), place, body=neutral(event.data.prompt[:_LONGEST_PROMPT])
        )

    def _artifact(self, event: ArtifactUpdatedEvent, place: Place | None) -> None:
        artifact = event.data
        size = f"{len(artifact.data):,} bytes" if artifact.data is not None else ""
        text = Text(neutral_line(artifact.name or artifact.artifact_id))
        text.append(f"  {joined(neutral_line(artifact.media_type), size)}", "dim")
        self._line("+", "blue", text, place, note=neutral_line(artifact.uri))

    def _aside(self, what: str, value_json: str, place: Place | None) -> None:
        value = value_line(value_json)
        self._line("·", "dim", Text(f"{what}  {value}" if value else what, "dim"), place)

    def _end(self, result: RunResult) -> None:
        mark, style = _OUTCOMES.get(result.state, _NOT_WELL)
        for line in summary_lines(result.evaluation) if result.evaluation else ():
            self._screen.line(line)
        if result.error is not None:
            kind = f"{result.error.type}: " if result.error.type else ""
            self._line("!", "red", Text("the run's error", "bold red"), body=neutral(f"{kind}{result.error.message}"))
        took = f" after {seconds(result.duration.total_seconds())}" if result.duration is not None else ""
        usage = tokens(result.usage.to_proto() if result.usage else TokenUsage())
        self._line(mark, style, Text(f"{_words(result.state)}{took}", style), aside=usage, apart=True)

    def _say(self, place: Place | None, text: str, style: str) -> None:
        self._screen.text(self._outline.enter(self._screen, place), text, style)

    def _line(
        self,
        mark: str,
        style: str,
        text: Text,
        place: Place | None = None,
        *,
        aside: str = "",
        note: str = "",
        body: str = "",
        apart: bool = False,
    ) -> None:
        self._put(Line(mark=mark, style=style, text=text, aside=aside, note=note, body=body, apart=apart), place)

    def _put(self, line: Line | None, place: Place | None = None) -> None:
        if line is not None:
            self._screen.line(replace(line, depth=self._outline.enter(self._screen, place)))


def _words(state: RunState) -> str:
    return state.value.replace("_", " ")
