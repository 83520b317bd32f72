"""Lines for other programs: JSON, or columns separated by tabs."""

import sys
from collections.abc import Sequence
from typing import IO, Annotated

import typer

from lavant.client import _json
from lavant.client.cli._untrusted import neutral_json

Header = Annotated[
    bool, typer.Option("--header", help="Begin lines of columns with one that names them, into a pipe or a file.")
]


def json_line(text: str, file: IO[str] | None = None) -> str:
    """Return JSON text as one line that any output can take.

    What breaks lines for some readers (U+2028, U+2029, U+0085) or is unseen is escaped; all that is not ASCII is, where
    the output's encoding lacks a character.
    """
    line = neutral_json(text)
    encoding = getattr(file or sys.stdout, "encoding", None) or "utf-8"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return "".join(character if character.isascii() else _escape(character) for character in line)
    return line


def print_json(value: object) -> None:
    """Print a value as one line of JSON."""
    print(json_line(_json.encode(value)), flush=True)


def print_header(columns: Sequence[str], wanted: bool) -> None:
    """Print the names of the columns that follow, in lower case, if that is wanted."""
    if wanted:
        print("\t".join(name.lower() for name in columns), flush=True)


def accept_any_text() -> None:
    """Have standard output and errors replace what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
