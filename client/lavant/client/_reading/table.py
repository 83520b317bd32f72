"""Short tables of long values, for `print`, notebooks and rich."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MAX_ROWS = 20
MAX_CELL = 60


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, and the first MAX_ROWS of `rows`; `total` is how many there are."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int

    @classmethod
    def of(cls, heading: str, columns: Sequence[str], rows: Iterable[Sequence[object]], total: int) -> "Table":
        """Make a table of any values: None is empty, text is shortened to one line."""
        shown = [[cell(value) for value in row] for row in islice(rows, MAX_ROWS)]
        return cls(heading, columns, shown, total)

    @property
    def rest(self) -> str:
        """Line below the rows with the number of further ones; empty if there are none."""
        left = self.total - len(self.rows)
        return f"… and {left:,} more" if left > 0 else ""

    def text(self) -> str:
        """Return the table as lines of text."""
        if not self.rows:
            return self.heading
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        aligned = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([self.heading, *(f"  {line}" for line in aligned), *([f"  {self.rest}"] if self.rest else [])])

    def html(self) -> str:
        """Return the table as HTML, for notebooks."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in self.rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if self.rows else ""
        return f"<p>{escape(self.heading)}</p>{table}" + (f"<p>{escape(self.rest)}</p>" if self.rest else "")

    def rich(self) -> "RichTable":
        """Return the table for rich, which is installed if this is called."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.heading), caption=self.rest or None, title_justify="left")
        for name in self.columns:
            table.add_column(name)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


class Shown:
    """Base of values that are shown as a table."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __str__(self) -> str:
        return self._table().text()

    def __rich__(self) -> "RichTable":
        return self._table().rich()

    def _repr_html_(self) -> str:
        return self._table().html()


def cell(value: object) -> str:
    """Return a value on one line, of at most MAX_CELL characters."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    line = " ".join(text[: 2 * MAX_CELL].split())
    return line if len(line) <= MAX_CELL else f"{line[: MAX_CELL - 1]}…"
