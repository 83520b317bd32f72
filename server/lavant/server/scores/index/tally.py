"""Aggregates of scores that can be merged."""

import math
import struct
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import accumulate

from pydantic_core import from_json, to_json

_HEADER = struct.Struct("<QQQQddI")  # values, verdicts, passes, errors, mean, squares, bytes of the classes' JSON


class Kind(IntEnum):
    """Kind of a score's result."""

    NUMBER = 0
    VERDICT = 1
    CLASS = 2
    ERROR = 3


class Tally:
    """Counts, moments and a histogram of scores.

    `errors` counts failures of evaluators, of which `unpassed` are counted as verdicts too. `values` counts numbers,
    and verdicts as 0 and 1; `mean` is theirs, `squares` the sum of their squared distances from it: unlike a sum of
    squares it keeps its digits when values are large and alike. The histogram has the values rounded to three
    significant digits; it is kept as parts, bins in ascending order with their counts, that are joined when
    a percentile is computed.
    """

    __slots__ = ("_parts", "classes", "errors", "mean", "passes", "squares", "unpassed", "values", "verdicts")

    def __init__(self) -> None:
        self.values = self.verdicts = self.passes = self.errors = self.unpassed = 0
        self.mean = self.squares = 0.0
        self.classes: Counter[str] = Counter()
        self._parts: list[tuple[array[float], array[int]]] = []

    @property
    def count(self) -> int:
        """Number of all scores, failures included."""
        return self.values + self.classes.total() + self.errors - self.unpassed

    @property
    def error_rate(self) -> float | None:
        """Part of all scores that are failures of their evaluators; None: there are no scores."""
        return self.errors / self.count if self.count else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the values; None: there are fewer than two."""
        return math.sqrt(self.squares / (self.values - 1)) if self.values > 1 else None

    def add_all(self, scores: Iterable[tuple[int, float | None, str]]) -> None:
        """Add scores: the Kind of each, its value, and its class."""
        numbers: list[float] = []
        for kind, value, label in scores:
            if kind == Kind.CLASS:
                self.classes[label] += 1
            elif value is None:
                self.errors += 1
            else:
                numbers.append(value)
                if kind == Kind.VERDICT:
                    self.verdicts += 1
                    self.passes += value > 0
        if numbers:
            self._add_numbers(numbers)

    def count_errors_as_unpassed(self) -> None:
        """Count the failures as verdicts that did not pass. Must be called once, before `merge`."""
        if self.errors:
            self.unpassed = self.errors
            self.verdicts += self.errors
            self._add_moments(self.errors, 0.0, 0.0)
            self._parts.append((array("d", [0.0]), array("I", [self.errors])))

    def merge(self, other: "Tally") -> None:
        """Add another tally, which is left unchanged."""
        self._add_moments(other.values, other.mean, other.squares)
        self.verdicts += other.verdicts
        self.passes += other.passes
        self.errors += other.errors
        self.unpassed += other.unpassed
        if other.classes:
            self.classes.update(other.classes)
        self._parts += other._parts

    def percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Return the values of these ranks, by nearest rank; none if there are no values."""
        if not self.values:
            return []
        bins, counts = self._histogram()
        reached = list(accumulate(counts))
        return [bins[bisect_left(reached, max(1, math.ceil(rank * self.values / 100)))] for rank in wanted]

    def encode(self) -> bytes:
        """Return the tally as a self-contained blob."""
        classes = to_json(self.classes) if self.classes else b""
        numbers = (self.values, self.verdicts, self.passes, self.errors, self.mean, self.squares)
        bins, counts = self._histogram()
        return b"".join((_HEADER.pack(*numbers, len(classes)), classes, bins.tobytes(), counts.tobytes()))

    @classmethod
    def decode(cls, blob: bytes) -> "Tally":
        """Parse a blob that `encode` returned."""
        tally = cls()
        *numbers, size = _HEADER.unpack_from(blob)
        tally.values, tally.verdicts, tally.passes, tally.errors, tally.mean, tally.squares = numbers
        start = _HEADER.size + size
        if size:
            tally.classes.update(from_json(blob[_HEADER.size : start]))
        if tally.values:
            bins, counts = array("d"), array("I")
            middle = start + (len(blob) - start) // (bins.itemsize + counts.itemsize) * bins.itemsize
            bins.frombytes(blob[start:middle])
            counts.frombytes(blob[middle:])
            tally._parts.append((bins, counts))
        return tally

    def _add_numbers(self, numbers: Sequence[float]) -> None:
        mean = math.fsum(numbers) / len(numbers)
        self._add_moments(len(numbers), mean, math.fsum((number - mean) ** 2 for number in numbers))
        counted = Counter(map(rounded, numbers))
        bins = sorted(counted)
        self._parts.append((array("d", bins), array("I", map(counted.__getitem__, bins))))

    def _add_moments(self, count: int, mean: float, squares: float) -> None:
        """Merge the moments of two sets of values (Chan, Golub and LeVeque, 1979)."""
        if not count:
            return
        total, distance = self.values + count, mean - self.mean
        self.squares += squares + distance * distance * self.values * count / total
        self.mean += distance * count / total
        self.values = total

    def _histogram(self) -> tuple["array[float]", "array[int]"]:
        if len(self._parts) > 1:
            joined: dict[float, int] = {}
            for bins, counts in self._parts:
                for value, count in zip(bins, counts, strict=True):
                    joined[value] = joined.get(value, 0) + count
            order = sorted(joined)
            self._parts = [(array("d", order), array("I", map(joined.__getitem__, order)))]
        return self._parts[0] if self._parts else (array("d"), array("I"))


def rounded(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.2e}") + 0.0  # minus zero is no bin of its own
