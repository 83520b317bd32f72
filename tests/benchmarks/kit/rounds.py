"""Interleaved rounds of systems that do the same work, and what each round measures."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.kit.process import Process

# Values by unit. A unit that ends in "/s" is a rate: more is better. Of all others less is better.
Figures = Mapping[str, float]
Measure = Callable[[int], Awaitable[Figures]]

SERVER_CPU = "server CPU µs"
CLIENT_CPU = "client CPU µs"
P50, P99 = "p50 ms", "p99 ms"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Conditions of one benchmark: its folder, whether loads are small, and whether to include other products."""

    folder: Path
    quick: bool
    products: bool

    def subfolder(self, name: str) -> Path:
        """Create a folder of this name."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        return folder

    async def interleaved(self, systems: Mapping[str, Measure], *, warm_up: bool = True) -> dict[str, list[Figures]]:
        """Measure each system once per round, one after the other, so that all meet the same noise.

        There are 5 rounds, or 3 with small loads. The round that warms up has number -1 and does not count.
        """
        measured: dict[str, list[Figures]] = {name: [] for name in systems}
        for number in range(-1 if warm_up else 0, self.rounds):
            for name, measure in systems.items():
                figures = await measure(number)
                if number >= 0:
                    measured[name].append(figures)
        return measured

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return self.size(5, quick=3)

    def size(self, full: int, *, quick: int) -> int:
        """Return the load that fits."""
        return quick if self.quick else full


class Meter:
    """Wall time of a block, with the CPU time of servers and of this process."""

    def __init__(self, *servers: Process | None) -> None:
        self._servers = [server for server in servers if server is not None]
        self.wall = self.server = self.client = 0.0

    def __enter__(self) -> "Meter":
        self.server = -self._server_cpu()
        self.client = -time.process_time()
        self.wall = -time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.wall += time.perf_counter()
        self.client += time.process_time()
        self.server += self._server_cpu()

    def figures(self, unit: str, count: int) -> dict[str, float]:
        """Return the rate of `count` units, and the CPU of each."""
        cpu = {SERVER_CPU: self.server / count * 1e6} if self._servers else {}
        return {f"{unit}/s": count / self.wall, **cpu, CLIENT_CPU: self.client / count * 1e6}

    def _server_cpu(self) -> float:
        return sum(server.cpu() for server in self._servers)


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, in ms."""
    ordered = sorted(seconds)
    return {P50: ordered[len(ordered) // 2] * 1e3, P99: ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3}


def part(measured: Mapping[str, Sequence[Figures]], name: str) -> dict[str, list[Figures]]:
    """Return the figures of a part of the work: those whose unit begins with its name and a colon."""
    prefix = f"{name}: "
    return {
        system: [
            {unit.removeprefix(prefix): value for unit, value in figures.items() if unit.startswith(prefix)}
            for figures in rounds
        ]
        for system, rounds in measured.items()
    }
