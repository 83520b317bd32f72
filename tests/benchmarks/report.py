"""How benchmarks tell what they measured: always beside what they compare with, from the same run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Two figures of one run. `at_least` and `at_most` bound ours / theirs."""

    name: str
    unit: str
    ours: float
    theirs: float
    compared_with: str
    at_least: float | None = None
    at_most: float | None = None

    def line(self) -> str:
        """One line for people."""
        ratio = self.ours / self.theirs
        told = [self.compared_with]
        if self.at_least is not None:
            told.append(f"aim >= {self.at_least:g}: {'met' if ratio >= self.at_least else 'MISSED'}")
        if self.at_most is not None:
            told.append(f"aim <= {self.at_most:g}: {'met' if ratio <= self.at_most else 'MISSED'}")
        return f"{self.name}: {self.ours:,.4g} {self.unit} = {ratio:.2f} x {self.theirs:,.4g} ({'; '.join(told)})"
