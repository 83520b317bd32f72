"""Runs the cases for one client, and prints a table of how they ended."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.lab import Lab
from conformance.suite import Case, Invalid, Unsupported, Violation, cases, lines
from lavant.server.app.logs import configure_logs

LIMIT = 60.0  # seconds for one case
ATTEMPTS = 3  # for a case that shows nothing, with other random numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a case ended: `outcome` is passed, failed, skipped or invalid."""

    case: Case
    outcome: str
    seconds: float
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the client may be released in spite of it."""
        return self.outcome in ("passed", "skipped")


async def run_case(case: Case, command: str, *, seed: int = 1) -> Result:
    """Run a case, up to its time limit."""
    began = time.monotonic()
    outcome, detail = "passed", ""
    for attempt in range(ATTEMPTS):
        outcome, detail = await _attempt(case, command, seed + attempt)
        if outcome != "invalid":
            break
    return Result(case=case, outcome=outcome, seconds=time.monotonic() - began, detail=detail)


async def _attempt(case: Case, command: str, seed: int) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(prefix="lavant-conformance-") as folder:
        try:
            async with asyncio.timeout(LIMIT), Lab(command, Path(folder), seed) as lab:
                await case.body(lab)
        except Unsupported as missing:
            return "skipped", f"the driver does not know {missing}"
        except Invalid as nothing:
            return "invalid", str(nothing)
        except Violation as violation:
            return "failed", str(violation)
        except TimeoutError:
            return "failed", f"it did not end within {LIMIT:g} s"
        except Exception as error:  # a case may fail in any way
            return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""


async def run_all(
    chosen: Sequence[Case], command: str, *, jobs: int, seed: int = 1, report: Callable[[Result], None]
) -> list[Result]:
    """Run cases, several at a time, and report each when it has ended."""
    slots = asyncio.Semaphore(jobs)

    async def run(case: Case) -> Result:
        async with slots:
            result = await run_case(case, command, seed=seed)
        report(result)
        return result

    return list(await asyncio.gather(*(run(case) for case in chosen)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite by the arguments of a command line; return the status to exit with."""
    parser = argparse.ArgumentParser(prog="make conformance", description="Test a lavant client.")
    parser.add_argument("client", help="the command that starts the client's driver, as a shell would split it")
    parser.add_argument("--only", default="", help="cases whose name has one of these words, or of these themes")
    parser.add_argument("--list", action="store_true", help="list the cases, and the lines of the protocol they test")
    parser.add_argument("--jobs", type=int, default=3, help="cases at a time; default 3")
    parser.add_argument("--seed", type=int, default=1, help="seed of what is random; default 1")
    options = parser.parse_args(arguments)
    chosen = cases(options.only)
    if not chosen:
        parser.error(f"no case has {options.only!r}")
    width = max(len(case.name) for case in chosen)
    if options.list:
        for case in chosen:
            print(f"{case.theme:11}  {case.name:{width}}  {case.sentence}")
            print(f"{'':11}  {'':{width}}  > {lines().get(case.name, '')}")
        return 0

    def report(result: Result) -> None:
        print(f"{result.case.name:{width}}  {result.outcome:7}  {result.seconds:5.1f} s  {result.detail}", flush=True)

    configure_logs("error", "console")
    began = time.monotonic()
    results = asyncio.run(run_all(chosen, options.client, jobs=options.jobs, seed=options.seed, report=report))
    counts = {name: sum(result.outcome == name for result in results) for name in ("passed", "failed", "skipped")}
    counts["invalid"] = len(results) - sum(counts.values())
    print(f"{len(results)} cases in {time.monotonic() - began:.0f} s:", *(f"{n} {name}" for name, n in counts.items()))
    return 0 if all(result.is_good for result in results) else 1
