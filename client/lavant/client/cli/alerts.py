"""Alerts in the syntax of the command line: `low: mean of correctness below 0.8 within 1h`."""

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


def parse_alerts(texts: Iterable[str] | None) -> list[Alert]:
    """Parse alerts. Raises a usage error that says what is wrong, and shows a valid alert."""
    return [_parse(text) for text in texts or ()]


def format_alert(alert: Alert) -> str:
    """Write an alert so that `parse_alerts` parses it; without its webhook's URL, which may be a secret."""
    side, number = ("below", alert.below) if alert.below is not None else ("above", alert.above)
    score = f" of {alert.score_name}" if alert.score_name else ""
    count = f" with {alert.min_count} scores" if alert.min_count else ""
    seconds = alert.window.total_seconds()
    unit = next((unit for unit, size in _UNITS.items() if seconds % size == 0), "s")
    window = f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{alert.name}: {alert.statistic.value}{score} {side} {number:g} within {window}{count}"


def _parse(text: str) -> Alert:
    found = _ALERT.fullmatch(text)
    if found is None:
        raise _invalid(text, f"is not {SYNTAX}")
    statistic = re.sub(r"[\s-]+", "_", found["statistic"].lower())
    if statistic not in _STATISTICS:
        raise _invalid(text, f"has the statistic {found['statistic']!r}, which is none of {', '.join(_STATISTICS)}")
    try:
        number = float(found["number"])
    except ValueError:
        raise _invalid(text, f"has {found['number']!r} in place of a number") from None
    is_below = found["side"] in ("below", "<")
    return Alert(
        name=found["name"],
        score_name=found["score"] or "",
        statistic=ScoreStatistic(statistic),
        below=number if is_below else None,
        above=None if is_below else number,
        window=timedelta(seconds=int(found["length"]) * _UNITS[found["unit"]]),
        min_count=int(found["count"]) if found["count"] else None,
        webhook_url=found["url"] or "",
    )


def _invalid(text: str, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"--alert {text!r} {why}; write it like {EXAMPLES[0]!r}")
