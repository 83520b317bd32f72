"""Finished runs decided on by a rule, and handed to a worker as it asks for them."""

import asyncio
import time
from pathlib import Path

from grpc import aio

from benchmarks import workload
from benchmarks.report import Ratio
from lavant.server.clock import SystemClock
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.rules import Rules
from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.evaluation_service_pb2 import GetRuleRequest, SampleRunsRequest, SampleRunsResponse
from lavant.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from lavant.v1.event_pb2 import Evaluator, Event, RunStarted
from lavant.v1.event_service_pb2 import ProducerBatch
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import ListRunsRequest
from lavant.v1.run_service_pb2_grpc import RunServiceStub
from support.server import CHANNEL_OPTIONS, ServerProcess

AT_ONCE = 1_000
RATE = 0.1
RULES = 10


async def run(folder: Path, *, quick: bool) -> Ratio:
    """Compare with reading the same runs page by page, of which nothing is decided or stored.

    Each of some rules looks at all runs, one rule after the other; of each its worker takes 1,000 samples.
    """
    runs = 2_000 if quick else round(AT_ONCE / RATE)
    await fill(folder / "lavant.db", runs)
    server = ServerProcess(folder)
    await server.start()
    try:
        async with aio.insecure_channel(server.target, options=CHANNEL_OPTIONS) as channel:
            theirs = min([await listed(channel, runs) for _ in range(3)])
            ours = sum([await sampled(channel, f"rule-{number}", runs) for number in range(RULES)]) / RULES
    finally:
        await server.kill()
    return Ratio(
        name=f"sampling of {runs:,} finished runs by each of {RULES} rules, one in {1 / RATE:.0f} handed out",
        unit="runs/s",
        ours=runs / ours,
        theirs=runs / theirs,
        compared_with="the same runs by ListRuns",
    )


async def fill(path: Path, runs: int) -> None:
    """Create rules, and then the runs that they are to see."""
    clock = SystemClock()
    engine = await SQLiteEngine.open(path, clock=clock)
    desks = Desks(engine, clock)
    rules = Rules(engine=engine, desks=desks, clock=clock)
    for number in range(RULES):
        evaluators = [Evaluator(name="correct")]
        rule = Rule(rule_id=f"rule-{number}", sample_rate=RATE, salt=str(number), evaluators=evaluators)
        await rules.create("default", rule)
    await desks.close()
    for start in range(0, runs, AT_ONCE):
        await asyncio.gather(*(_finish(engine, f"run-{number}") for number in range(start, start + AT_ONCE)))
    await engine.close()


async def _finish(engine: SQLiteEngine, run_id: str) -> None:
    key = RunKey("default", run_id)
    await engine.create_run(key, Run(run_id=run_id, name="weather-agent", labels={"env": "prod"}))
    batch: ProducerBatch = workload.finish(run_id, 1)
    started = Event(event_id="bench.0", event_time=batch.events[0].event_time, run_started=RunStarted())
    batch.events.insert(0, started)
    await engine.append(key, batch)


async def listed(channel: aio.Channel, expected: int) -> float:
    """Read all runs in pages; return the seconds it took."""
    stub = RunServiceStub(channel)
    began = time.perf_counter()
    seen, token = 0, ""
    while True:
        page = await stub.ListRuns(ListRunsRequest(page_size=AT_ONCE, page_token=token))
        seen += sum(run.name == "weather-agent" for run in page.runs)
        token = page.next_page_token
        if not token:
            break
    assert seen == expected, f"{seen} runs came, not {expected}"
    return time.perf_counter() - began


async def sampled(channel: aio.Channel, rule_id: str, expected: int) -> float:
    """Take samples until the rule has seen all runs; return the seconds that it took."""
    stub = EvaluationServiceStub(channel)
    began = time.perf_counter()
    call = stub.SampleRuns(
        SampleRunsRequest(rule_id=rule_id, worker_id="bench", session_id="bench", max_samples=AT_ONCE)
    )
    taken: list[str] = []
    while True:
        frame = await call.read()
        assert isinstance(frame, SampleRunsResponse)
        taken += [sample.run.run_id for sample in frame.samples.samples]
        if frame.HasField("caught_up") or len(taken) == AT_ONCE:
            break
    elapsed = time.perf_counter() - began
    seen = (await stub.GetRule(GetRuleRequest(rule_id=rule_id))).rule.progress.runs_seen
    assert len(taken) > 0.8 * RATE * expected
    call.cancel()
    return elapsed * expected / seen
