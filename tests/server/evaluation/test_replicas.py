"""Two servers that share a store: a rule is one rule to all of its workers."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from support.clock import ManualClock
from support.rules import (
    Worker,
    create_rule,
    delete_rule,
    evaluated_runs,
    finish,
    get_rule,
    pass_time,
    results,
    scored,
    update_rule,
)
from support.server import Stubs
from support.status import refused


async def evaluate_all(worker: Worker, everything: set[str], done: set[str]) -> None:
    """Evaluate all samples, until all runs are done by any worker."""
    evaluated_here = 0
    while done != everything:
        reading = asyncio.ensure_future(worker.read())
        while not reading.done() and done != everything:
            await asyncio.wait((reading,), timeout=0.05)
        if done == everything:
            reading.cancel()
            return
        for run_id in worker.run_ids[evaluated_here:]:
            await worker.complete(run_id)
            done.add(run_id)
            evaluated_here += 1


async def test_no_run_is_evaluated_twice(replicas: Sequence[Stubs]) -> None:
    await create_rule(replicas[0])
    workers = [await Worker(replicas[n % 2], f"s{n}", max_samples=3).opened() for n in range(4)]
    ids = [f"run-{number}" for number in range(60)]
    done: set[str] = set()
    await asyncio.gather(
        finish(replicas[0], ids[::2]),
        finish(replicas[1], ids[1::2]),
        *(evaluate_all(worker, set(ids), done) for worker in workers),
    )
    assigned = Counter(run_id for worker in workers for run_id in worker.run_ids)
    assert assigned == dict.fromkeys(ids, 1)
    events = await results(replicas[0])
    assert sorted(evaluated_runs(events)) == sorted(ids)
    assert Counter(run_id for run_id, _ in scored(events)) == dict.fromkeys(ids, 1)
    progress = (await get_rule(replicas[1])).progress
    assert (progress.runs_examined, progress.runs_selected, progress.runs_evaluated) == (60, 60, 60)


async def test_a_worker_reconnects_to_the_other_server(replicas: Sequence[Stubs]) -> None:
    await create_rule(replicas[0])
    worker = await Worker(replicas[0]).opened()
    ids = await finish(replicas[0], ["a", "b", "c"])
    await worker.got(3)
    worker.cut()
    worker.stubs = replicas[1]
    worker.samples.clear()
    await worker.opened(attempt=1)
    assert await worker.got(3) == ids
    worker.stubs = replicas[0]
    assert await worker.complete(*ids) == [False] * 3
    worker.stubs = replicas[1]
    assert await worker.complete(*ids) == [True] * 3


async def test_a_dead_workers_samples_go_to_one_on_the_other_server(
    replicas: Sequence[Stubs], clock: ManualClock
) -> None:
    await create_rule(replicas[0])
    dead = await Worker(replicas[0], "dead").opened(lease={"seconds": 10})
    await finish(replicas[0], ["a", "b"])
    await dead.got(2)
    other = await Worker(replicas[1], "other").opened()
    await other.caught_up()
    dead.cut()
    await pass_time(replicas[1], clock, 10)
    assert await other.got(2) == ["a", "b"]
    with refused("SAMPLE_LOST"):
        await dead.complete("a")


async def test_changes_reach_the_streams_of_the_other_server(replicas: Sequence[Stubs]) -> None:
    rule = await create_rule(replicas[0])
    worker = await Worker(replicas[1]).opened()
    await worker.caught_up()
    rule.filter.names.append("other")
    await update_rule(replicas[0], rule)
    assert (await get_rule(replicas[1])).revision == 2
    await finish(replicas[0], ["weather"])
    await finish(replicas[0], ["other"], name="other")
    assert await worker.got(1) == ["other"]
    assert worker.samples[0].rule_revision == 2
    await delete_rule(replicas[0])
    with refused("RULE_NOT_FOUND"):
        while True:
            await worker.read()


async def test_both_change_a_rule_at_once(replicas: Sequence[Stubs]) -> None:
    rule = await create_rule(replicas[0])
    worker = await Worker(replicas[0], max_samples=2).opened()
    ids = await finish(replicas[0], [f"run-{number}" for number in range(10)])

    async def change(stubs: Stubs, salt: str) -> None:
        other = type(rule)()
        other.CopyFrom(rule)
        other.revision, other.salt = 0, salt
        await update_rule(stubs, other)

    changes = asyncio.gather(*(change(replicas[n % 2], str(n)) for n in range(6)))
    for number, run_id in enumerate(ids):
        await worker.got(number + 1)
        await worker.complete(run_id)
    await changes
    last = await get_rule(replicas[1])
    assert (last.revision, last.progress.runs_evaluated) == (7, 10)
    segments = int(last.evaluation_id.rpartition(".")[2])
    assert evaluated_runs(await results(replicas[1], segments=segments)) == ids == worker.run_ids
