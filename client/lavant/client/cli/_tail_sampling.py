"""Shows what becomes of a rule's samples, and alerts."""

from rich.text import Text

from lavant.client import Event
from lavant.client._event_data import AlertChanged
from lavant.client.cli._screen import Line
from lavant.client.cli._tail_words import error_text, joined
from lavant.client.cli._text import count
from lavant.client.cli._untrusted import neutral_line


def sampling_line(event: Event) -> Line | None:
    """Write what an event tells; nothing where only a lease goes on."""
    match event.type:
        case "samples_drawn":
            drawn = event.data
            return _aside(f"{count(len(drawn.run_ids), 'run')} drawn of {drawn.runs_seen:,}")
        case "samples_leased" if event.data.run_ids:
            leased = event.data
            return _aside(f"{count(len(leased.run_ids), 'run')} handed to {neutral_line(leased.worker_id, 60)}")
        case "sample_returned":
            run_id = neutral_line(event.data.run_id, 60)
            if event.data.error is not None:
                text = Text(f"run {run_id} could not be judged", "yellow")
                return Line(mark="!", style="yellow", text=text, body=error_text(event.data.error))
            return _aside(f"run {run_id} was given back")
        case "alert_changed":
            return _alert(event.data)
    return None


def _aside(text: str) -> Line:
    return Line(mark="·", style="dim", text=Text(text, "dim"))


def _alert(alert: AlertChanged) -> Line:
    mark, style, state = ("!", "bold red", "firing") if alert.firing else ("✓", "green", "over")
    text = Text(f"{neutral_line(alert.rule_id, 60)} {neutral_line(alert.alert, 60)} {state}", style)
    numbers = f"{alert.value:.3g} of {count(alert.count, 'score')}, threshold {alert.threshold:g}"
    return Line(
        mark=mark,
        style=style,
        text=text.append(f"  {joined(numbers)}", "not bold dim"),
        note=neutral_line(alert.message),
    )
