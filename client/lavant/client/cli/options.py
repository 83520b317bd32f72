"""Options that several commands share, and the values they are parsed to."""

import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import typer

from lavant.client import AsyncClient, Run, RunChange, RunKind, RunState
from lavant.client._wire.arguments import run_filter
from lavant.client.cli.output import first

_LARGEST_PAGE = 1_000
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d{1,9})([smhd])")


def _complete_state() -> list[str]:
    return [state.value for state in RunState if state is not RunState.UNSPECIFIED]


def _complete_kind() -> list[str]:
    return [kind.value for kind in RunKind if kind is not RunKind.UNSPECIFIED]


RunId = Annotated[str, typer.Argument(metavar="RUN", help="ID of the run.", show_default=False)]
RuleId = Annotated[str, typer.Argument(metavar="RULE", help="ID of the rule.", show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(
        *("--target", "-t"),
        metavar="HOST:PORT",
        envvar="LAVANT_TARGET",
        help="Address of the server.",
        show_default="localhost:7447",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", envvar="LAVANT_API_KEY", help="API key to send.", show_default=False),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        envvar="LAVANT_PROFILE",
        help="Profile in ~/.config/lavant/config.toml with these options.",
        show_default="default, if there is one",
    ),
]
Tls = Annotated[
    bool | None,
    typer.Option("--tls", envvar="LAVANT_TLS", help="Use TLS, and trust public CAs.", show_default=False),
]
Insecure = Annotated[
    bool | None,
    typer.Option(
        "--insecure",
        envvar="LAVANT_INSECURE",
        help="Send the API key without TLS to any server.",
        show_default=False,
    ),
]


def _file(flag: str, text: str) -> Any:
    variable = f"LAVANT_{flag.upper().replace('-', '_')}"
    return typer.Option(f"--{flag}", metavar="FILE", envvar=variable, help=text, show_default=False)


TlsCa = Annotated[str | None, _file("tls-ca", "Use TLS, and trust the CAs in this PEM file.")]
TlsCert = Annotated[str | None, _file("tls-cert", "PEM file with the client's certificate.")]
TlsKey = Annotated[str | None, _file("tls-key", "PEM file with the key of the client's certificate.")]

# The options of every command that uses a client, by the fields of a profile.
CONNECTION = {
    "target": Target,
    "api_key": ApiKey,
    "tls": Tls,
    "tls_ca": TlsCa,
    "tls_cert": TlsCert,
    "tls_key": TlsKey,
    "insecure": Insecure,
}

States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only runs in this state; may be repeated.",
        autocompletion=_complete_state,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="Only runs of this kind, agent or evaluation; may be repeated.",
        autocompletion=_complete_kind,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="Only runs of this name; a trailing * is a wildcard; may be repeated."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Only with this label; may be repeated, all must match."),
]
ScoreLabels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Add this label to the scores; may be repeated."),
]
SystemRuns = Annotated[
    bool,
    typer.Option("--system", help="Also runs that the server writes itself: the audit, alerts and results of rules."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only runs created since: an age such as 90s, 30m, 2h or 7d, or an ISO 8601 date and time.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="Maximum number to list; 0 lists all.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Header = Annotated[
    bool, typer.Option("--header", help="Print a first line with the names of the columns, into a pipe or a file.")
]


def labels_of(pairs: Iterable[str] | None, option: str = "--label") -> dict[str, str]:
    """Parse `key=value` pairs. Raises a usage error."""
    labels = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{option} must be KEY=VALUE, not {pair!r}")
        labels[key] = value
    return labels


def names_of(text: str) -> list[str]:
    """Split names that are separated by commas."""
    return [name for name in text.replace(" ", "").split(",") if name]


def since_of(text: str | None, option: str = "--since") -> datetime | None:
    """Parse an age or a point in time, which is local without a zone. Raises a usage error."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{option} must be like 90s, 30m, 2h, 7d or 2026-01-31T12:00, not {text!r}") from None


def seconds_of(text: str, option: str) -> float:
    """Parse a duration such as 90s, 30m, 2h or 7d. Raises a usage error."""
    if length := _AGO.fullmatch(text):
        return float(int(length[1]) * _UNITS[length[2]])
    raise typer.BadParameter(f"{option} must be like 90s, 30m, 2h or 7d, not {text!r}")


def page_size(limit: int) -> int:
    """Return how many items to request at once, if at most `limit` are needed; 0: all."""
    return min(limit or _LARGEST_PAGE, _LARGEST_PAGE)


def usage_error(error: ValueError) -> typer.BadParameter:
    """Return what a client refuses as a usage error, with the names of options instead of parameters."""
    return typer.BadParameter(str(error).replace("kinds", "--kind").replace("states", "--state"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A filter of runs, as given on the command line; empty or None matches all runs."""

    states: tuple[str, ...]
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    labels: dict[str, str]
    since: datetime | None
    system_runs: bool = False

    @classmethod
    def parse(
        cls,
        states: list[str] | None,
        kinds: list[str] | None,
        names: list[str] | None,
        labels: list[str] | None,
        since: str | None,
        *,
        system_runs: bool = False,
    ) -> Self:
        """Parse the values of the options. Raises a usage error."""
        selection = cls(
            states=tuple(states or ()),
            kinds=tuple(kinds or ()),
            names=tuple(names or ()),
            labels=labels_of(labels),
            since=since_of(since),
            system_runs=system_runs,
        )
        try:
            run_filter(states=selection.states, kinds=selection.kinds)
        except ValueError as error:
            raise usage_error(error) from None
        return selection

    @property
    def matches_all(self) -> bool:
        """Whether every run matches."""
        return not (self.states or self.kinds or self.names or self.labels or self.since)

    def list(self, client: AsyncClient, limit: int = 0) -> AsyncIterator[Run]:
        """List the matching runs, the newest first, at most `limit`; 0: all."""
        found = client.runs.list(
            states=self.states,
            kinds=self.kinds,
            names=self.names,
            labels=self.labels,
            created_after=self.since,
            include_system_runs=self.system_runs,
            page_size=page_size(limit),
        )
        return first(found, limit)

    def watch(self, client: AsyncClient) -> AsyncIterator[RunChange]:
        """Watch the matching runs: their current state, then the changes to them."""
        return client.runs.watch(
            states=self.states,
            kinds=self.kinds,
            names=self.names,
            labels=self.labels,
            created_after=self.since,
            include_system_runs=self.system_runs,
        )
