"""The cases of the suite, by name, and how one of them ends."""

import importlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.lab import Lab

THEMES = (
    *("reading", "endings", "cuts", "leases", "publishing", "rejections"),
    *("runs", "connections", "credentials"),
)
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

Body = Callable[["Lab"], Awaitable[None]]


class Violation(Exception):
    """The client does not do what the protocol requires."""


class Unsupported(Exception):
    """The client's driver does not know a command."""


class Invalid(Exception):
    """The case has shown nothing: what it should have survived did not happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One requirement of docs/protocol.md, and how to test it. `theme` is the module that has it."""

    name: str
    theme: str
    body: Body

    @property
    def sentence(self) -> str:
        """What the client has to do."""
        return " ".join((self.body.__doc__ or "").split())


_CASES: dict[str, Case] = {}


def case(body: Body) -> Body:
    """Register a case under the name of its function."""
    name, theme = body.__name__, body.__module__.rpartition(".")[2]
    if name in _CASES:
        raise ValueError(f"there are two cases {name}")
    _CASES[name] = Case(name=name, theme=theme, body=body)
    return body


def cases(only: str = "") -> list[Case]:
    """Return the cases, theme by theme; with `only`, those whose name or theme has one of its words."""
    for theme in THEMES:
        importlib.import_module(f"conformance.cases.{theme}")
    words = only.replace(",", " ").split()
    return [one for one in _CASES.values() if not words or any(w == one.theme or w in one.name for w in words)]


def lines() -> dict[str, str]:
    """Return the line of docs/protocol.md that names each case."""
    found: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        for name in re.findall(r"`([a-z0-9_]+)`", line):
            if name not in found or line.startswith("|"):  # a row says most
                found[name] = line.strip()
    return found


def expect(found: object, wanted: object, what: str) -> None:
    """Raise Violation unless two values are equal."""
    if found != wanted:
        raise Violation(f"{what}: expected {wanted!r}, not {found!r}")


def require(condition: object, what: str) -> None:
    """Raise Violation unless a condition holds."""
    if not condition:
        raise Violation(what)
