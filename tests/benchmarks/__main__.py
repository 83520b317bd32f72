"""`make bench`: every figure beside what it compares with. `--quick` takes small loads and checks for regressions."""

import argparse
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks import (
    bursts,
    calls,
    clients,
    cluster,
    disk,
    durable,
    fan_out,
    floods,
    idle,
    imports,
    languages,
    lists,
    live,
    otlp,
    publish,
    recording,
    replay,
    sampling,
    scores,
    small_runs,
    sse,
    streams,
)
from benchmarks.kit.report import Records, Table, machine
from benchmarks.kit.rounds import Bench

ALL = {
    "small-runs": small_runs.one,
    "small-runs-16": small_runs.sixteen,
    "small-runs-50": small_runs.fifty,
    "calls": calls.run,
    "live": live.run,
    "publish": publish.waiting,
    "publish-64": publish.in_flight,
    "durable": durable.run,
    "replay": replay.run,
    "idle": idle.run,
    "lists": lists.run,
    "fan-out": fan_out.small,
    "fan-out-1000": fan_out.large,
    "bursts": bursts.run,
    "floods": floods.run,
    "recording": recording.run,
    "reading": clients.reading,
    "writing": clients.writing,
    "streams": streams.run,
    "languages": languages.run,
    "sse": sse.run,
    "imports": imports.run,
    "disk": disk.run,
    "sampling": sampling.run,
    "scores": scores.query,
    "scores-history": scores.history,
    "scores-intake": scores.intake,
    "otlp": otlp.run,
    "cluster": cluster.run,
}
RECORDS = Path(__file__).with_name("recorded.json")
_REPEATS = 2  # of a benchmark that is worse than recorded


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lavant-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # a server may run as another user
        yield folder


async def _main(arguments: argparse.Namespace) -> int:
    """Print all tables; return the exit status."""
    records = Records(RECORDS)
    missed: list[str] = []
    regressions: list[str] = []
    print(f"# lavant's benchmarks: {machine()}", flush=True)
    for name in arguments.names or ALL:
        tables = await _tables(name, arguments)
        missed += [f"{table.name}: {line}" for table in tables for line, met in table.outcomes() if not met]
        if arguments.record:
            records.keep(tables)
        elif arguments.quick:
            regressions += await _regressions(name, tables, records, arguments)
    if arguments.strict and missed:
        print("\nAims missed:", *missed, sep="\n- ")
    if regressions:
        print(f"\nWorse than 0.7 of {RECORDS.name}:", *regressions, sep="\n- ")
    return 1 if regressions or (arguments.strict and missed) else 0


async def _tables(name: str, arguments: argparse.Namespace) -> Sequence[Table]:
    """Run a benchmark and print its tables."""
    with _folder() as folder:
        tables = await ALL[name](Bench(folder=folder, quick=arguments.quick, products=arguments.products))
    for table in tables:
        print(*table.lines(), sep="\n", flush=True)
    return tables


async def _regressions(
    name: str, tables: Sequence[Table], records: Records, arguments: argparse.Namespace
) -> Sequence[str]:
    """Return what is worse than recorded in each of several runs: small loads on a busy machine vary."""
    regressions = records.regressions(tables)
    for _ in range(_REPEATS):
        if not regressions:
            break
        print(f"\n{name} is repeated, as it was worse than recorded:", *regressions.values(), sep="\n- ")
        again = records.regressions(await _tables(name, arguments))
        regressions = {ratio: again[ratio] for ratio in regressions if ratio in again}
    return tuple(regressions.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("names", nargs="*", metavar="|".join(ALL))
    parser.add_argument("--quick", action="store_true", help="small loads; fail below 0.7 of a recorded ratio")
    parser.add_argument("--record", action="store_true", help="small loads; record their ratios")
    parser.add_argument("--products", action="store_true", help="with --quick: also other products that are installed")
    parser.add_argument("--strict", action="store_true", help="fail if an aim is missed")
    chosen = parser.parse_args()
    chosen.quick = chosen.quick or chosen.record
    chosen.products = chosen.products or not chosen.quick
    # A connection per call at once needs more open files than the usual limit allows.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.exit(uvloop.run(_main(chosen)))
