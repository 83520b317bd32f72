"""Alerts as people write them: `low: mean of correctness below 0.8 within 1h`."""

import re
from collections.abc import Iterable
from datetime import timedelta

import typer

from lavant.client import Alert, ScoreStatistic

SYNTAX = "NAME: STATISTIC [of SCORE] below|above NUMBER within TIME [with COUNT scores] [to URL]"
EXAMPLES = (
    "low: mean of correctness below 0.8 within 1h",
    "rude: pass_rate of polite below 0.9 within 30m with 20 scores to https://hooks.example.com/lavant",
    "broken: error_rate above 0.5 within 10m",
    "silent: count below 1 within 1d",
)
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_STATISTICS = [one.value for one in ScoreStatistic if one is not ScoreStatistic.UNSPECIFIED]
_ALERT = re.compile(
    r"""\s*(?P<name>[^:]+?)\s*:\s*
    (?P<statistic>\S+(?:\s+rate)?)
    (?:\s+of\s+(?P<score>.+?))?
    \s+(?P<side>below|above|<|>)\s*(?P<number>\S+)
    \s+within\s+(?P<length>\d{1,7})\s*(?P<unit>[smhd])
    (?:\s+with\s+(?P<count>\d{1,12})\s+scores?)?
    (?:\s+to\s+(?P<url>\S+))?\s*""",
    re.VERBOSE,
)


def alerts_of(texts: Iterable[str] | None) -> list[Alert]:
    """Read alerts. Raises a usage error that says what is wrong, and how it is written."""
    return [_alert(text) for text in texts or ()]


def alert_text(alert: Alert) -> str:
    """Write an alert so that `alerts_of` reads it; without the address that it is posted to, which may be a secret."""
    side, number = ("below", alert.below) if alert.below is not None else ("above", alert.above)
    score = f" of {alert.score_name}" if alert.score_name else ""
    count = f" with {alert.min_count} scores" if alert.min_count else ""
    return f"{alert.name}: {alert.statistic.value}{score} {side} {number:g} within {_length(alert.window)}{count}"


def _alert(text: str) -> Alert:
    found = _ALERT.fullmatch(text)
    if found is None:
        raise _wrong(text, f"is not {SYNTAX}")
    statistic = re.sub(r"[\s-]+", "_", found["statistic"].lower())
    if statistic not in _STATISTICS:
        raise _wrong(text, f"has the statistic {found['statistic']!r}, which is none of {', '.join(_STATISTICS)}")
    try:
        number = float(found["number"])
    except ValueError:
        raise _wrong(text, f"has {found['number']!r} where a number must be") from None
    is_below = found["side"] in ("below", "<")
    return Alert(
        name=found["name"],
        score_name=found["score"] or "",
        statistic=ScoreStatistic(statistic),
        below=number if is_below else None,
        above=None if is_below else number,
        window=timedelta(seconds=int(found["length"]) * _UNITS[found["unit"]]),
        min_count=int(found["count"] or 0),
        webhook_url=found["url"] or "",
    )


def _wrong(text: str, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"--alert {text!r} {why}; as in {EXAMPLES[0]!r}")


def _length(window: timedelta) -> str:
    seconds = window.total_seconds()
    unit = next((unit for unit, size in _UNITS.items() if seconds % size == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"
