"""Tables of what was measured: every figure beside what it compares with, and whether the aims are met."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.kit.rounds import Figures

_TOLERATED = 0.7  # of the recorded ratio: a slower machine changes both sides, a regression only one


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Bound of lavant's figure, or of its ratio to what another system measured in the same round.

    `beside` names the other system, whose unit is the same unless `of` names another. With `plus`, the bound of the
    ratio allows so much more, in the unit. With `beyond`, the difference is bounded instead of the ratio.
    """

    unit: str
    at_least: float | None = None
    at_most: float | None = None
    beside: str = ""
    of: str = ""
    beyond: bool = False
    system: str = "lavant"

    def outcome(self, measured: Mapping[str, Sequence[Figures]]) -> tuple[str, bool] | None:
        """Return a line for people and whether the aim is met; None if the other system was not measured."""
        ours = [figures[self.unit] for figures in measured[self.system]]
        if not self.beside:
            values, subject = ours, self.unit
        elif self.beside not in measured:
            return None
        else:
            theirs = [figures[self.of or self.unit] for figures in measured[self.beside]]
            if self.beyond:
                values = [a - b for a, b in zip(ours, theirs, strict=True)]
                subject = f"{self.unit} more than {self.beside}"
            else:
                values, subject = _ratios(ours, theirs), f"{self.unit} / {self.of or 'that'} of {self.beside}"
        value = statistics.median(values)
        met = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        system = "" if self.system == "lavant" else f"{self.system}: "
        return f"{system}{subject} {bound}: {_number(value)} {'met' if met else '**MISSED**'}", met


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures of one benchmark: per system, those of each round. The first system is lavant.

    `recorded` names the units that hold still on a noisy machine: their ratios to `baseline`, or the figures
    themselves without one, are compared with those in `recorded.json`.
    """

    name: str
    title: str
    measured: Mapping[str, Sequence[Figures]]
    aims: Sequence[Aim] = ()
    recorded: Sequence[str] = ()
    baseline: str = ""

    def lines(self) -> Iterator[str]:
        """Yield the table as Markdown: medians, with the median of lavant's ratios to it and their spread."""
        first, *_ = self.measured
        units = list(dict.fromkeys(unit for rounds in self.measured.values() for unit in rounds[0]))
        rows = [["", *units]]
        for system, rounds in self.measured.items():
            row = [system]
            for unit in units:
                if unit not in rounds[0]:
                    row.append("")
                    continue
                values = [figures[unit] for figures in rounds]
                cell = _number(statistics.median(values))
                if system == first:
                    cell += f" ({_number(min(values))}-{_number(max(values))})" if len(values) > 1 else ""
                elif unit in self.measured[first][0]:
                    ratios = _ratios([figures[unit] for figures in self.measured[first]], values)
                    if ratios:
                        cell += f" → {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                row.append(cell)
            rows.append(row)
        rows.insert(1, ["---", *("---:" for _ in units)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(units) + 1)]
        rounds_number = len(self.measured[first])
        yield f"\n### {self.name}: {self.title} ({rounds_number} round{'s' * (rounds_number != 1)})\n"
        for row in rows:
            yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        yield ""
        for line, _ in self.outcomes():
            yield f"- {line}"

    def outcomes(self) -> list[tuple[str, bool]]:
        """Return a line per aim that could be measured, and whether it is met."""
        return [outcome for aim in self.aims if (outcome := aim.outcome(self.measured))]

    def stable(self) -> dict[str, float]:
        """Return what `recorded.json` keeps of this table."""
        first, *_ = self.measured
        values = {}
        for unit in self.recorded:
            ours = [figures[unit] for figures in self.measured[first]]
            theirs = [figures[unit] for figures in self.measured[self.baseline]] if self.baseline else [1.0] * len(ours)
            values[unit] = statistics.median(_ratios(ours, theirs))
        return values


class Records:
    """Ratios of an earlier run with the same loads, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ratios: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}

    def regressions(self, tables: Sequence[Table]) -> dict[tuple[str, str], str]:
        """Return a line per ratio that is worse than 0.7 of the recorded one, by its table and unit."""
        lines = {}
        for table in tables:
            for unit, now in table.stable().items():
                before = self._ratios.get(table.name, {}).get(unit)
                if before is not None and (now / before if unit.endswith("/s") else before / now) < _TOLERATED:
                    beside = f" / {table.baseline}" if table.baseline else ""
                    lines[table.name, unit] = f"{table.name}: {unit}{beside} was {before:.3g}, is {now:.3g}"
        return lines

    def keep(self, tables: Sequence[Table]) -> None:
        """Write the tables' ratios to the file."""
        for table in tables:
            if stable := table.stable():
                self._ratios[table.name] = {unit: float(f"{value:.3g}") for unit, value in stable.items()}
        self._path.write_text(json.dumps(dict(sorted(self._ratios.items())), indent=2, ensure_ascii=False) + "\n")


def machine() -> str:
    """Return a line that describes this machine, its load and the versions that matter."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "uvloop"))
    return (
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide pair by pair; nothing is divided by zero, which a system measures that does no such work."""
    return [a / b for a, b in zip(ours, theirs, strict=True) if b]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
