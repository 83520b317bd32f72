"""A rule continues at its position when its store is copied from a file to NATS."""

from pathlib import Path

from lavant.server.commands.copying import copy
from lavant.server.store.jetstream import Limits, Location
from lavant.v1.run_service_pb2 import WatchRunsRequest, WatchRunsResponse
from support.clock import ManualClock
from support.rules import Worker, backfill, create_rule, evaluated_runs, finish, get_rule, results, update_rule
from support.server import Stubs, serving
from support.status import refused


async def prepared(stubs: Stubs) -> str:
    """Create a rule with samples in all states, and return the resume token of a watch."""
    await finish(stubs, [f"old-{number}" for number in range(20)])
    rule = await create_rule(stubs)
    worker = await Worker(stubs, max_samples=40).opened()
    await finish(stubs, [f"seen-{number}" for number in range(20)])
    await worker.got(20)
    await worker.complete(*[f"seen-{number}" for number in range(19)])
    worker.cut()
    rule.paused = True
    rule = await update_rule(stubs, rule)
    await finish(stubs, [f"paused-{number}" for number in range(20)])
    rule.paused = False
    await update_rule(stubs, rule)
    await finish(stubs, [f"new-{number}" for number in range(20)])
    watch = stubs.runs.WatchRuns(WatchRunsRequest())
    frame = await watch.read()
    assert isinstance(frame, WatchRunsResponse)
    watch.cancel()
    return frame.resume_token


async def test_every_run_is_seen_once(tmp_path: Path, location: Location, clock: ManualClock) -> None:
    async with serving(tmp_path, clock=clock) as server:
        token = await prepared(server.stubs)
    await copy(tmp_path / "lavant.db", location, Limits(replicas=1), keep_epoch=True)
    await copy(tmp_path / "lavant.db", location, Limits(replicas=1), keep_epoch=True)
    async with serving(tmp_path, clock=clock, store=str(location)) as server:
        stubs = server.stubs
        worker = await Worker(stubs, max_samples=100).opened()
        held = ["seen-19"]
        new = [f"new-{number}" for number in range(20)]
        assert await worker.got(21) == [*held, *new]
        await worker.complete(*held, *new)
        assert (await get_rule(stubs)).progress.runs_evaluated == 40
        await backfill(stubs)
        missed = [f"{when}-{number}" for when in ("old", "paused") for number in range(20)]
        assert sorted((await worker.got(61))[21:]) == sorted(missed)
        await worker.complete(*missed)
        progress = (await get_rule(stubs)).progress
        assert (progress.runs_examined, progress.runs_evaluated) == (80, 80)
        everything = evaluated_runs(await results(stubs, segments=5))
        assert len(everything) == len(set(everything)) == 80
        with refused("INVALID_FIELD"):
            await stubs.runs.WatchRuns(WatchRunsRequest(resume_token=token)).read()
