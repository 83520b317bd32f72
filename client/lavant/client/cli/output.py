"""Output of commands: tables for people, tab-separated columns or JSON lines for other programs."""

import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Generic, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lavant.client import Evaluation, EvaluationSummary, RunState, Score
from lavant.client._wire import json_text as _json
from lavant.client.cli.untrusted import neutral_json, one_line

STATE_STYLES = {
    RunState.QUEUED: "dim",
    RunState.RUNNING: "cyan",
    RunState.INPUT_REQUIRED: "magenta",
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.TIMED_OUT: "red",
    RunState.CANCELLED: "yellow",
    RunState.ABANDONED: "yellow",
}
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))
# Columns that shrink before all others where a terminal is narrow.
_ELASTIC = {"NAME", "LABELS", "EXPLANATION"}
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Listing(Generic[_Record]):
    """Layout of a list of records of one kind.

    `columns` and `row` are for other programs, `headings` and `cells` for people; without `headings`, both see the
    same. `numeric` are the headings of numbers. `empty` is printed to stderr in a terminal if there are no records.
    """

    columns: Sequence[str]
    row: Callable[[_Record], Sequence[str]]
    empty: str
    headings: Sequence[str] = ()
    cells: Callable[[_Record], Sequence[str | Text]] | None = None
    numeric: Sequence[str] = ()

    async def print(self, records: AsyncIterable[_Record], *, json: bool, header: bool) -> None:
        """Print records: in a terminal all at once, otherwise one by one as they arrive."""
        if sys.stdout.isatty() and not json:
            found = [record async for record in records]
            if found:
                Console().print(self.table(found))
            else:
                typer.echo(self.empty, err=True)
            return
        self.print_header(json=json, header=header)
        async for record in records:
            self.print_line(record, json=json)

    def print_header(self, *, json: bool, header: bool) -> None:
        """Print the names of the columns, if they are wanted and lines follow."""
        if header and not json:
            print("\t".join(self.columns), flush=True)

    def print_line(self, record: _Record, *, json: bool) -> None:
        """Print a record on one line."""
        if json:
            print_json(record)
        else:
            print("\t".join(map(one_line, self.row(record))), flush=True)

    def table(self, records: Sequence[_Record]) -> Table:
        """Return a table of records."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in self.headings or [column.upper() for column in self.columns]:
            is_number = heading in self.numeric
            table.add_column(heading, no_wrap=heading not in _ELASTIC, justify="right" if is_number else "left")
        for record in records:
            table.add_row(*map(_cell, (self.cells or self.row)(record)))
        return table


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(one_line(value), no_wrap=True, overflow="ellipsis")


async def first(records: AsyncIterable[_Record], limit: int) -> AsyncIterator[_Record]:
    """Yield at most `limit` records; 0: all."""
    left = limit
    async for record in records:
        yield record
        left -= 1
        if left == 0:
            return


def print_json(value: object) -> None:
    """Print a value as one line of JSON."""
    print(json_line(_json.encode(value)), flush=True)


def json_line(text: str, file: IO[str] | None = None) -> str:
    """Return JSON text as one line that any output accepts.

    Invisible characters and those that some readers take for a line break (U+2028, U+2029, U+0085) are escaped. If the
    output's encoding lacks a character, all that are not ASCII are escaped.
    """
    line = neutral_json(text)
    encoding = getattr(file or sys.stdout, "encoding", None) or "utf-8"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return "".join(character if character.isascii() else _escape(character) for character in line)
    return line


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def label_text(labels: Mapping[str, str]) -> str:
    """Write labels as `key=value`, sorted."""
    return " ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def state_text(state: RunState) -> Text:
    """Write a run's state in its colour."""
    return Text(state.value, style=STATE_STYLES.get(state, ""))


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
    """Write a score as `name=value`: a pass or fail as true or false, an evaluator's failure as error."""
    value = score.value
    if value is None:
        text = "error"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = value if isinstance(value, str) else f"{value:.3g}"
    return one_line(f"{score.name}={text}")


def means(evaluation: Evaluation | EvaluationSummary) -> dict[str, float]:
    """Return an evaluation's accuracy and the means of its scores, by name; a score called accuracy wins."""
    accuracy = {} if evaluation.accuracy is None else {"accuracy": evaluation.accuracy}
    return {**accuracy, **dict(sorted(evaluation.mean_scores.items()))}
