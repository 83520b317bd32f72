"""What the demo shows: text as it comes, tools, progress. In colour where there is a terminal and rich."""

import json

from lavant.client import Event, Usage

try:
    from rich.console import Console
except ModuleNotFoundError:
    Console = None  # type: ignore[assignment, misc]


class View:
    """Prints a run as it goes."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True) if Console is not None else None
        self._in_text = False

    def event(self, event: Event) -> None:
        """Show an event."""
        match event.type:
            case "reasoning_delta":
                self._text(event.data.text, "italic dim")
            case "text_delta":
                self._text(event.data.text, "")
            case "tool_call_started":
                call = event.data.call
                self.line(f"  > {call.tool_name} {_short(call.arguments)}", "cyan")
            case "tool_call_finished":
                self.line(f"  < {event.data.tool_name} {_short(event.data.result)}", "green")
            case "progress_reported":
                usage = event.data.usage or Usage()
                tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
                self.line(f"  = step {event.data.iteration} done, {tokens} so far", "dim")

    def note(self, text: str) -> None:
        """Show what the demo itself does."""
        self.line(f"** {text}", "bold yellow")

    def line(self, text: str, style: str = "") -> None:
        """Show a line."""
        self._print(("\n" if self._in_text else "") + text + "\n", style)
        self._in_text = False

    def _text(self, text: str, style: str) -> None:
        self._print(text, style)
        self._in_text = True

    def _print(self, text: str, style: str) -> None:
        if self._console is None:
            print(text, end="", flush=True)
        else:
            self._console.print(text, style=style or None, end="", markup=False)
            self._console.file.flush()


def _short(value: object, width: int = 90) -> str:
    text = json.dumps(value)
    return text if len(text) <= width else text[: width - 3] + "..."
