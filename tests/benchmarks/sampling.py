"""Finished runs that a rule examines, and samples that a worker receives."""

from benchmarks import stored_runs
from benchmarks.kit.process import Process
from benchmarks.kit.report import Table
from benchmarks.kit.rounds import SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers.lavant import serve
from lavant.v1.evaluation_service_pb2 import SampleRunsRequest, SampleRunsResponse
from lavant.v1.event_pb2 import Evaluator
from lavant.v1.rule_pb2 import Rule
from lavant.v1.rule_service_pb2 import CreateRuleRequest, GetRuleRequest
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.server import Stubs, connected

RATE = 0.1
PAGE = 1_000


async def run(bench: Bench) -> list[Table]:
    """Compare with reading the same runs page by page, of which nothing is decided or stored.

    Each round has a rule of its own, which examines all runs.
    """
    runs = bench.size(10_000, quick=2_000)
    folder = bench.subfolder("lavant")
    async with serve(folder) as server, connected(server.address) as stubs:
        for number in range(-1, bench.rounds):
            rule = Rule(
                rule_id=_rule(number), sample_rate=RATE, salt=str(number), evaluators=[Evaluator(name="correct")]
            )
            await stubs.rules.CreateRule(CreateRuleRequest(rule=rule))
    await stored_runs.fill(folder / "lavant.db", runs)
    async with serve(folder) as server, connected(server.address) as stubs:
        measured = await bench.interleaved(
            {
                "lavant": lambda number: _sample(server, stubs, _rule(number), runs),
                "ListRuns": lambda _: _list(server, stubs, runs),
            }
        )
    return [
        Table(
            name="sampling",
            title=f"{runs:,} runs examined by a rule, one in {1 / RATE:.0f} assigned to a worker",
            measured=measured,
            recorded=[SERVER_CPU],
            baseline="ListRuns",
        )
    ]


def _rule(number: int) -> str:
    return f"rule-{number + 1}"


async def _list(server: Process, stubs: Stubs, expected: int) -> Figures:
    seen, token = 0, ""
    with Meter(server) as meter:
        while seen == 0 or token:
            page = await stubs.runs.ListRuns(ListRunsRequest(page_size=PAGE, page_token=token))
            seen, token = seen + len(page.runs), page.next_page_token
    assert seen >= expected  # the rules have runs too
    return meter.figures("runs", seen)


async def _sample(server: Process, stubs: Stubs, rule_id: str, runs: int) -> Figures:
    """Take samples until the rule has examined all runs, or the worker has as many as it takes at once."""
    taken = 0
    with Meter(server) as meter:
        call = stubs.evaluations.SampleRuns(
            SampleRunsRequest(rule_id=rule_id, worker_id="bench", session_id="bench", max_samples=PAGE)
        )
        caught_up = False
        while not caught_up and taken < PAGE:
            frame = await call.read()
            assert isinstance(frame, SampleRunsResponse)
            taken += len(frame.samples.samples)
            caught_up = frame.HasField("caught_up")
    examined = (await stubs.rules.GetRule(GetRuleRequest(rule_id=rule_id))).rule.progress.runs_examined
    assert taken > 0.7 * RATE * runs
    call.cancel()
    return meter.figures("runs", examined)
