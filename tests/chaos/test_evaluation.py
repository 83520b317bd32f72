"""The server is killed with SIGKILL at random while runs finish and are evaluated: each is evaluated once.

Long runs: LAVANT_CHAOS_CYCLES=200 LAVANT_CHAOS_SEED=7 pytest tests/chaos --timeout 0
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
from grpc import StatusCode, aio

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_pb2 import Score
from support.calls import ended_run, until
from support.nats import NatsServer, free_ports
from support.rules import create_rule, evaluated_runs, get_rule, results, scored
from support.scores import scores_of
from support.server import ServerProcess, Stubs, connected, serving
from support.status import Refusal

CYCLES = int(os.environ.get("LAVANT_CHAOS_CYCLES", "3"))
SEED = int(os.environ.get("LAVANT_CHAOS_SEED", "0")) or Random().randrange(1, 2**31)
RUNS_BETWEEN_KILLS = 40
WORKERS = 3
NAMES = ("correct", "polite")
CUT = {StatusCode.UNAVAILABLE, StatusCode.CANCELLED, StatusCode.INTERNAL, StatusCode.UNKNOWN}
LOST = "SAMPLE_LOST"


class Evaluators:
    """Finish runs and evaluate them, over raw stubs, through whatever happens to the server.

    `up` is set while the server may be called; whoever kills it clears `up` first.
    """

    def __init__(self, runs: int, *targets: str) -> None:
        self.up = asyncio.Event()
        self.finished = 0
        self.evaluated: set[str] = set()
        self._ids = [f"run-{number}" for number in range(runs)]
        self._targets = cycle(targets)

    async def finish(self) -> None:
        """Have all runs run through, one after the other."""
        for run_id in self._ids:
            await self._insist(partial(ended_run, run_id=run_id))
            self.finished += 1

    async def progress(self, runs: int) -> None:
        """Wait until so many runs have finished."""
        await until(lambda: self.finished >= min(runs, len(self._ids)))

    async def evaluate(self, worker: str) -> None:
        """Evaluate samples until there are none left."""
        attempt, token = 0, ""
        unanswered: list[str] = []
        while len(self.evaluated) < len(self._ids):
            attempt += 1

            async def sample(stubs: Stubs, attempt: int = attempt) -> None:
                nonlocal token
                while unanswered:  # it may be done; reporting that again does no harm
                    await self._complete(stubs, worker, unanswered[-1])
                    unanswered.pop()
                request = pb.SampleRunsRequest(
                    rule_id="rule", worker_id=worker, session_id=worker, attempt=attempt, max_samples=7
                )
                request.lease.seconds = 2
                request.heartbeat_interval.seconds = 1
                request.resume_token = token
                async for frame in stubs.evaluations.SampleRuns(request):
                    for one in frame.samples.samples:
                        unanswered.append(one.run.run_id)
                        await self._complete(stubs, worker, one.run.run_id)
                        unanswered.pop()
                    token = frame.resume_token
                    if len(self.evaluated) == len(self._ids):
                        return

            await self._once(sample)

    async def _complete(self, stubs: Stubs, worker: str, run_id: str) -> None:
        request = pb.CompleteSampleRequest(rule_id="rule", run_id=run_id, session_id=worker)
        request.scores.scores.extend(Score(name=name, number=1.0) for name in NAMES)
        try:
            await stubs.evaluations.CompleteSample(request)
        except aio.AioRpcError as error:
            refusal = Refusal()
            refusal.read(error)
            if error.code() in CUT or refusal.reason != LOST:
                raise
        self.evaluated.add(run_id)

    async def _insist(self, call: Callable[[Stubs], Awaitable[object]]) -> None:
        while not await self._once(call):
            pass

    async def _once(self, call: Callable[[Stubs], Awaitable[object]]) -> bool:
        await self.up.wait()
        try:
            async with connected(next(self._targets)) as stubs:
                await call(stubs)
        except aio.AioRpcError as error:
            if error.code() not in CUT:
                raise
            await asyncio.sleep(0)
            return False
        return True


@pytest.mark.timeout(60 + 10 * CYCLES)
async def test_each_run_is_evaluated_once_and_each_score_found_once(tmp_path: Path) -> None:
    print(f"LAVANT_CHAOS_SEED={SEED} LAVANT_CHAOS_CYCLES={CYCLES}")
    random = Random(SEED)
    runs = (CYCLES + 1) * RUNS_BETWEEN_KILLS
    process = ServerProcess(tmp_path)
    await process.start()
    evaluators = Evaluators(runs, process.target)
    try:
        async with connected(process.target) as stubs:
            await create_rule(stubs)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(evaluators.finish())
            for number in range(WORKERS):
                tasks.create_task(evaluators.evaluate(f"worker-{number}"))
            evaluators.up.set()
            for _ in range(CYCLES):
                await evaluators.progress(evaluators.finished + random.randrange(1, RUNS_BETWEEN_KILLS))
                evaluators.up.clear()
                await process.restart()
                evaluators.up.set()
        async with connected(process.target) as stubs:
            await check(stubs, runs)
    finally:
        await process.kill()


@pytest.mark.timeout(60 + 10 * CYCLES)
async def test_a_shared_store_that_is_out_of_reach_at_times(tmp_path: Path) -> None:
    """Each caller goes from one server to the other with every failure."""
    runs = (CYCLES + 1) * RUNS_BETWEEN_KILLS
    nats = NatsServer(tmp_path / "nats", free_ports(1)[0])
    nats.start()
    try:
        await asyncio.to_thread(nats.wait)
        store = f"nats://{nats.address}"
        async with serving(tmp_path, store=store) as here, serving(tmp_path, store=store) as there:
            evaluators = Evaluators(runs, here.target, there.target)
            await create_rule(here.stubs)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(evaluators.finish())
                for number in range(WORKERS):
                    tasks.create_task(evaluators.evaluate(f"worker-{number}"))
                evaluators.up.set()
                for _ in range(CYCLES):
                    await evaluators.progress(evaluators.finished + RUNS_BETWEEN_KILLS // 2)
                    await asyncio.to_thread(nats.kill)
                    nats.start()
                    await asyncio.to_thread(nats.wait)
            for server in (here, there):
                await check(server.stubs, runs)
    finally:
        nats.kill()


async def check(stubs: Stubs, runs: int) -> None:
    """Compare what is stored, counted and found with what was finished."""
    everything = {f"run-{number}" for number in range(runs)}
    events = await results(stubs)
    assert Counter(evaluated_runs(events)) == dict.fromkeys(everything, 1)
    wanted = {(run_id, name): 1 for run_id in everything for name in NAMES}
    assert Counter(scored(events)) == wanted

    async def found() -> bool:
        scores = await scores_of(stubs)
        assert len(scores) <= len(wanted)
        return Counter((told.subject_run_id, told.score.name) for told in scores) == wanted

    await until(found)
    progress = (await get_rule(stubs)).progress
    assert (progress.runs_examined, progress.runs_selected, progress.runs_evaluated, progress.runs_failed) == (
        runs,
        runs,
        runs,
        0,
    )
