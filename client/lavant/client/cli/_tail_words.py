"""How a tail writes durations, tokens, arguments and scores."""

import json
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from rich.text import Text

from lavant.client import ErrorInfo
from lavant.client.cli._untrusted import neutral, neutral_line
from lavant.v1 import event_pb2, run_pb2

_LONGEST_VALUE = 60
_LONGEST_PARSED = 20_000
_LONGEST_BODY = 2_000


def seconds(value: float) -> str:
    """Write a duration: 320 ms, 12.4 s, 3 m 07 s, 2 h 05 m."""
    if value < 0.9995:
        return f"{max(0.0, value) * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} m {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} m"


def duration_of(message: Message) -> str:
    """Write a message's duration, if it has one."""
    duration: Duration = message.duration  # type: ignore[attr-defined]
    return seconds(duration.seconds + duration.nanos / 1e9) if message.HasField("duration") else ""


def tokens(usage: run_pb2.TokenUsage) -> str:
    """Write tokens and cost, as far as they are known."""
    counts = f"{usage.input_tokens:,} tokens in · {usage.output_tokens:,} out"
    return joined(
        counts if usage.input_tokens or usage.output_tokens else "",
        f"${usage.cost_usd:,.{2 if usage.cost_usd >= 1 else 4}f}" if usage.HasField("cost_usd") else "",
    )


def joined(*parts: str) -> str:
    """Join what there is."""
    return " · ".join(part for part in parts if part)


def error_text(error: run_pb2.Error | ErrorInfo) -> str:
    """Write an error: its type and its message, which may have lines."""
    kind, message = neutral_line(error.type), neutral(error.message[:_LONGEST_BODY]).strip()
    return f"{kind}: {message}" if kind and message else kind or message or "no reason was given"


def arguments(text: str, longest: int = _LONGEST_VALUE) -> str:
    """Write a call's arguments on a line: `city="Oslo" days=3`; `longest` is for each of them."""
    if len(text) <= _LONGEST_PARSED:
        try:
            value = json.loads(text or "{}")
            if isinstance(value, dict):
                return neutral_line(" ".join(f"{key}={_short(item, longest)}" for key, item in value.items()))
        except (ValueError, RecursionError):
            pass
    return neutral_line(text)


def value_line(text: str) -> str:
    """Write a JSON value on a line; a string without its quotes."""
    if text.startswith('"') and len(text) <= _LONGEST_PARSED:
        try:
            return neutral_line(str(json.loads(text)))
        except ValueError:
            pass
    return neutral_line(text)


def _short(value: object, longest: int) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def scores_text(scores: Iterable[event_pb2.Score]) -> Text:
    """Write an evaluator's verdicts: `correctness 0.92  polite ✓`."""
    return Text("  ").join(_score_text(score) for score in scores)


def _score_text(score: event_pb2.Score) -> Text:
    text = Text(neutral_line(score.name, _LONGEST_VALUE) + " ", style="dim")
    match score.WhichOneof("value"):
        case "number":
            text.append(f"{score.number:.3g}", "not dim bold")
        case "passed":
            text.append("✓" if score.passed else "✗", "not dim green" if score.passed else "not dim red")
        case "label":
            text.append(neutral_line(score.label, _LONGEST_VALUE), "not dim bold")
        case _:
            text.append("error", "not dim red")
    return text
