"""Groups of commands: `lavant` itself, whose commands are imported when they are called, and those within it."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from lavant.client.cli import missing

# Plain help: importing rich and its Markdown would be most of the time that `lavant --help` takes.
_PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_show_locals": False,  # they hold keys
}
_NEGATIVE = re.compile(r"-(?:\d|\.\d|inf|nan).*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Entry of a command in the help of `lavant`: all that is known before the command is imported.

    `home` is `module:name` of a command's function or of a group; `summary` is the first line of its help. `settings`
    are those of typer's `command`.
    """

    name: str
    panel: str
    home: str
    summary: str
    examples: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Import the command, and return it as one of click. Exits with what to install if a dependency is missing."""
        module, _, name = self.home.partition(":")
        try:
            found = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            sys.exit(missing(error))
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(**_PLAIN)
        alone.command(self.name, epilog=examples(*self.examples) if self.examples else None, **self.settings)(found)
        return typer.main.get_command(alone)


class _Group(TyperGroup):
    """Group whose help has the first line of each command's help, whole."""

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names and summaries of the commands, by panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None) or "Commands"
            panels.setdefault(panel, []).append((name, (command.help or "").partition("\n")[0]))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class _LazyGroup(_Group):
    """Group of entries. Listing them imports none, calling one imports that one."""

    entries: Mapping[str, Entry] = {}

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a command."""
        entry = self.entries.get(cmd_name)
        return None if entry is None else entry.load()


class TakesNegativeNumbers(TyperCommand):
    """Command whose arguments may be negative numbers: `-3` is none of its options."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line; with a negative number in it, an unknown option is an argument too many."""
        ctx.ignore_unknown_options = any(map(_NEGATIVE.fullmatch, args))
        return super().parse_args(ctx, args)


def lazy_group(name: str, *entries: Entry) -> typer.Typer:
    """Return a group of entries, which shells can complete."""
    kind = type("_Entries", (_LazyGroup,), {"entries": {entry.name: entry for entry in entries}})
    app = typer.Typer(
        name=name,
        cls=kind,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
        pretty_exceptions_show_locals=False,  # they hold keys
    )
    for entry in entries:
        app.command(entry.name, help=entry.summary, rich_help_panel=entry.panel)(_stand_in)
    return app


def _stand_in() -> None:
    """Represent a command in the help of its group until it is imported."""


def group(name: str, summary: str) -> typer.Typer:
    """Return an empty group within `lavant`."""
    return typer.Typer(name=name, help=summary, cls=_Group, no_args_is_help=True, **_PLAIN)


def examples(*lines: str) -> str:
    """Return examples of a command as the end of its help."""
    return "\n  ".join(("\b\nExamples:", *lines))  # click does not wrap a paragraph that begins with \b
