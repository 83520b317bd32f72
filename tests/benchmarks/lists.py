"""Lists among many runs, with filters that match few of them or none."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from benchmarks import stored_runs
from benchmarks.kit.process import Process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import P50, SERVER_CPU, Bench, Figures, Meter, part
from benchmarks.peers.lavant import serve
from benchmarks.peers.registry import available
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import GetRunRequest, ListRunsRequest, RunFilter
from support.server import Stubs, connected

ASKED = 100  # runs
REPEATS = 10
PAGES = "pages"
# A filter of lavant's, and the same as a condition of SQL.
QUERIES: Mapping[str, tuple[RunFilter, str]] = {
    "newest": (RunFilter(), "true"),
    "a label of 2 %": (RunFilter(labels={"team": "t7"}), """labels @> '{"team": "t7"}'"""),
    "a rare label": (RunFilter(labels={"user": "u77"}), """labels @> '{"user": "u77"}'"""),
    "two labels, none found": (
        RunFilter(labels={"env": "prod", "team": "t7"}),
        """labels @> '{"env": "prod", "team": "t7"}'""",
    ),
    "failed": (RunFilter(states=[RunState.RUN_STATE_FAILED]), "state = 'failed'"),
    "an unknown name": (RunFilter(names=["nope"]), "name = 'nope'"),
    "an unknown prefix": (RunFilter(names=["nope*"]), "name LIKE 'nope%'"),
}


async def run(bench: Bench) -> list[Table]:
    """Measure the first 100 runs of each list, in as many pages as the server makes of them."""
    runs = bench.size(100_000, quick=5_000)
    await stored_runs.fill(bench.subfolder("lavant") / "lavant.db", runs)
    postgres = dict(available(bench, "postgres")).get("postgres")
    async with serve(bench.subfolder("lavant")) as server, connected(server.address) as stubs:
        systems = {"lavant": partial(_measured, server, partial(_listed, stubs))}
        systems["lavant GetRun"] = partial(_measured, server, partial(_fetched, stubs))
        if postgres is None:
            measured = await bench.interleaved(systems)
        else:
            async with (
                postgres.serve(bench.subfolder("postgres")) as other,
                postgres.connect(other.address) as connection,
            ):
                rows: Any = connection
                await rows.fill_runs([stored_runs.row(number) for number in range(runs)])
                systems["postgres"] = partial(_measured, other, partial(_selected, rows))
                measured = await bench.interleaved(systems)
    return [_table(query, runs, measured) for query in QUERIES]


def _table(query: str, runs: int, rounds: Mapping[str, list[Figures]]) -> Table:
    return Table(
        name=f"lists: {query}",
        title=f"{query}, among {runs:,} runs",
        measured=part(rounds, query),
        aims=[Aim(unit=P50, beside="postgres", at_most=2), Aim(unit=PAGES, at_most=1)],
        recorded=[SERVER_CPU],
        baseline="lavant GetRun",
    )


async def _measured(server: Process, ask: Callable[[str], Awaitable[int]], _: int) -> Figures:
    figures = {}
    for query in QUERIES:
        seconds = []
        with Meter(server) as meter:
            for _ in range(REPEATS):
                began = time.perf_counter()
                pages = await ask(query)
                seconds.append(time.perf_counter() - began)
        figures[f"{query}: {P50}"] = statistics.median(seconds) * 1e3
        figures[f"{query}: {SERVER_CPU}"] = meter.server / REPEATS * 1e6
        figures[f"{query}: {PAGES}"] = pages
    return figures


async def _listed(stubs: Stubs, query: str) -> int:
    found, pages, token = 0, 0, ""
    while True:
        request = ListRunsRequest(filter=QUERIES[query][0], page_size=ASKED - found, page_token=token)
        page = await stubs.runs.ListRuns(request)
        found, pages, token = found + len(page.runs), pages + 1, page.next_page_token
        if found == ASKED or not token:
            return pages


async def _fetched(stubs: Stubs, _: str) -> int:
    """Get one run: what any call costs."""
    await stubs.runs.GetRun(GetRunRequest(run_id=stored_runs.row(1)[0]))
    return 1


async def _selected(postgres: Any, query: str) -> int:
    await postgres.find_runs(QUERIES[query][1], ASKED)
    return 1
