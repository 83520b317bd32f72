"""Shows an evaluation: its rows as they are scored, and what they add up to."""

from rich.text import Text

from lavant.client import EvaluationSummary
from lavant.client.cli._screen import Line
from lavant.client.cli._tail_words import duration_of, error_text, joined, scores_text
from lavant.client.cli._text import measures
from lavant.client.cli._untrusted import neutral_line
from lavant.v1.event_pb2 import EvaluationPlan, RowFinished

_ID_WIDTH = 12
_BAR_WIDTH = 20


def plan_text(plan: EvaluationPlan) -> str:
    """Write what an evaluation will do."""
    evaluators = ", ".join(neutral_line(evaluator.name, 60) for evaluator in plan.evaluators[:20])
    return joined(
        f"dataset {neutral_line(plan.dataset, 60)}" if plan.dataset else "",
        f"{plan.row_count:,} rows" if plan.row_count else "",
        f"{plan.iterations} iterations" if plan.iterations > 1 else "",
        evaluators,
    )


def row_line(row: RowFinished) -> Line:
    """Write a row with its scores: ✗ if its task or an evaluator failed, ! if an assertion did not hold."""
    errors = [error_text(row.error)] if row.HasField("error") else []
    errors += [
        f"{neutral_line(score.name, 60)}: {error_text(score.error)}" for score in row.scores if score.HasField("error")
    ]
    refuted = any(score.WhichOneof("value") == "passed" and not score.passed for score in row.scores)
    mark, style = ("✗", "red") if errors else ("!", "yellow") if refuted else ("✓", "green")
    name = neutral_line(row.row_id, 40) + (f" #{row.iteration}" if row.iteration > 1 else "")
    text = Text(f"{name:{_ID_WIDTH}}  ").append_text(scores_text(row.scores))
    return Line(mark=mark, style=style, text=text, aside=duration_of(row), body="\n".join(errors))


def summary_lines(summary: EvaluationSummary) -> list[Line]:
    """Write what the rows add up to, a line for each measure."""
    failed = f"{summary.rows_failed:,} failed" if summary.rows_failed else ""
    head = joined(f"{summary.rows_succeeded:,} rows scored", failed)
    lines = [Line(mark="Σ", style="bold", text=Text(head, style="bold"))]
    names = {neutral_line(name, 40): mean for name, mean in measures(summary).items()}
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
