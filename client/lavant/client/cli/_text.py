"""How values are written for people: on one line, without what would steer a terminal."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from lavant.client import Evaluation, EvaluationSummary, Score

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))


def one_line(text: str) -> str:
    """Return text with its line breaks as spaces and its control characters as U+FFFD."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in _flat(text))


def label_text(labels: Mapping[str, str]) -> str:
    """Write labels as `key=value`, sorted."""
    return one_line(" ".join(f"{key}={value}" for key, value in sorted(labels.items())))


def age(since: datetime | None, now: datetime) -> str:
    """Write how long ago something was, in its largest unit: 5s, 3m, 2h, 4d."""
    if since is None:
        return ""
    seconds = max(0, (now - since) // timedelta(seconds=1))
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def count(number: int, noun: str) -> str:
    """Write a number of things: 1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def score_text(score: Score) -> str:
    """Write a score as `name=value`: a verdict as true or false, a failure as error."""
    value = score.value
    if value is None:
        said = "error"
    elif isinstance(value, bool):
        said = str(value).lower()
    else:
        said = value if isinstance(value, str) else f"{value:.3g}"
    return one_line(f"{score.name}={said}")


def measures(evaluation: Evaluation | EvaluationSummary) -> dict[str, float]:
    """Name what an evaluation's rows add up to, the accuracy first; a score of that name wins."""
    accuracy = {} if evaluation.accuracy is None else {"accuracy": evaluation.accuracy}
    return {**accuracy, **dict(sorted(evaluation.mean_scores.items()))}


def _flat(text: str) -> str:
    return " ".join(text.split())
