"""The options that several commands share."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

import typer

from lavant.client import RunKind, RunState

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d{1,9})([smhd])")


def _complete_state() -> list[str]:
    return [state.value for state in RunState if state is not RunState.UNSPECIFIED]


def _complete_kind() -> list[str]:
    return [kind.value for kind in RunKind if kind is not RunKind.UNSPECIFIED]


RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)]
RuleId = Annotated[str, typer.Argument(metavar="RULE", help="The rule's id.", show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="HOST:PORT", envvar="LAVANT_TARGET", help="The server.", show_default="localhost:7447"
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="LAVANT_API_KEY", help="The key to show.", show_default=False),
]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="In this state; may be repeated.", autocompletion=_complete_state),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="agent or evaluation; may be repeated.", autocompletion=_complete_kind),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="Of this name; a trailing * matches any end; may be repeated."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="With this label; all that are given must fit."),
]
ScoreLabels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Add this label to the scores; may be repeated."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Created since then: 90s, 30m, 2h, 7d ago, or a date and time (ISO 8601)."
    ),
]


def labels_of(pairs: Iterable[str] | None, option: str = "--label") -> dict[str, str]:
    """Read `key=value` pairs. Raises a usage error for one that is none."""
    labels = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{option} must be KEY=VALUE, not {pair!r}")
        labels[key] = value
    return labels


def since_of(text: str | None, now: datetime, option: str = "--since") -> datetime | None:
    """Read a point in time, or how long ago it was; without a zone it is local. Raises a usage error."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{option} must be like 90s, 30m, 2h, 7d or 2026-01-31T12:00, not {text!r}") from None


def seconds_of(text: str, option: str) -> float:
    """Read a length of time such as 90s, 30m, 2h, 7d. Raises a usage error."""
    if length := _AGO.fullmatch(text):
        return float(int(length[1]) * _UNITS[length[2]])
    raise typer.BadParameter(f"{option} must be like 90s, 30m, 2h or 7d, not {text!r}")
