"""Texts of a tail: durations, tokens, arguments, scores, rows and alerts."""

import json
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from rich.text import Text

from lavant.client import ErrorInfo, EvaluationSummary
from lavant.client.cli.output import count, means
from lavant.client.cli.tail.screen import Line
from lavant.client.cli.untrusted import neutral, neutral_line
from lavant.client.event_data import AlertChanged, AuditRecorded
from lavant.v1 import event_pb2, run_pb2
from lavant.v1.event_pb2 import EvaluationPlan, RowFinished

_ID_WIDTH = 12
_BAR_WIDTH = 20
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
    """Join the parts that are not empty."""
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
    """Write scores: `correctness 0.92  polite ✓`."""
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


def plan_text(plan: EvaluationPlan) -> str:
    """Write the plan of an evaluation."""
    evaluators = ", ".join(neutral_line(evaluator.name, 60) for evaluator in plan.evaluators[:20])
    return joined(
        f"dataset {neutral_line(plan.dataset, 60)}" if plan.dataset else "",
        f"{plan.row_count:,} rows" if plan.row_count else "",
        f"{plan.iterations} iterations" if plan.iterations > 1 else "",
        evaluators,
    )


def row_line(row: RowFinished) -> Line:
    """Write a row with its scores: ✗ if its task or an evaluator failed, ! if an assertion failed."""
    errors = [error_text(row.error)] if row.HasField("error") else []
    errors += [
        f"{neutral_line(score.name, 60)}: {error_text(score.error)}" for score in row.scores if score.HasField("error")
    ]
    has_failed_assertion = any(score.WhichOneof("value") == "passed" and not score.passed for score in row.scores)
    mark, style = ("✗", "red") if errors else ("!", "yellow") if has_failed_assertion else ("✓", "green")
    name = neutral_line(row.row_id, 40) + (f" #{row.iteration}" if row.iteration > 1 else "")
    text = Text(f"{name:{_ID_WIDTH}}  ").append_text(scores_text(row.scores))
    return Line(mark=mark, style=style, text=text, aside=duration_of(row), body="\n".join(errors))


def summary_lines(summary: EvaluationSummary) -> list[Line]:
    """Write an evaluation's summary, a line for each mean."""
    failed = f"{summary.rows_failed:,} failed" if summary.rows_failed else ""
    head = joined(f"{summary.rows_succeeded:,} rows scored", failed)
    lines = [Line(mark="Σ", style="bold", text=Text(head, style="bold"))]
    names = {neutral_line(name, 40): mean for name, mean in means(summary).items()}
    width = max(map(len, names), default=0)
    return lines + [Line(depth=1, mark=" ", text=_mean_text(f"{name:{width}}", mean)) for name, mean in names.items()]


def _mean_text(name: str, mean: float) -> Text:
    text = Text(f"{name}  ", style="dim")
    if 0 <= mean <= 1:
        done = round(mean * _BAR_WIDTH)
        text.append("━" * done, "not dim cyan").append("─" * (_BAR_WIDTH - done) + "  ")
    else:
        text.append(" " * (_BAR_WIDTH + 2))
    return text.append(f"{mean:.3g}", "not dim bold")


def alert_line(alert: AlertChanged) -> Line:
    """Write a change of an alert."""
    mark, style, state = ("!", "bold red", "firing") if alert.firing else ("✓", "green", "over")
    text = Text(f"{neutral_line(alert.rule_id, 60)} {neutral_line(alert.alert, 60)} {state}", style)
    numbers = f"{alert.value:.3g} of {count(alert.count, 'score')}, threshold {alert.threshold:g}"
    return Line(
        mark=mark,
        style=style,
        text=text.append(f"  {joined(numbers)}", "not bold dim"),
        note=neutral_line(alert.message),
    )


def audit_line(audit: AuditRecorded) -> Line:
    """Write what was refused, or administered."""
    mark, style = {"allowed": ("·", "green"), "denied": ("✗", "bold red")}.get(audit.outcome, ("!", "yellow"))
    who = neutral_line(audit.principal or "several principals", 60)
    method = neutral_line(audit.method.rpartition("/lavant.v1.")[2] or audit.method, 60)
    text = Text(f"{who} {joined(audit.outcome, neutral_line(audit.reason, 40))} {method}", style)
    times = f"{audit.count:,} times" if audit.count > 1 else ""
    details = joined(times, neutral_line(audit.peer, 60))
    return Line(
        mark=mark,
        style=style,
        text=text.append(f"  {details}", "not bold dim"),
        note=neutral_line(" ".join(audit.resources), 200),
    )
