"""Evaluation of the runs that a rule selects, by workers of several servers that share a store on NATS."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.client import AsyncClient, EvaluatedRun
from lavant.server.store.jetstream import Location
from support.sampled import RULE, Cold, finish_runs, result_scores
from support.server import serving

RUN_IDS = [f"run-{number}" for number in range(60)]


class Replicas:
    """Two servers of one store, of which the first can be stopped."""

    def __init__(self, location: Location, folder: Path) -> None:
        self.targets: list[str] = []
        self._location = location
        self._folder = folder
        self._first = AsyncExitStack()
        self._second = AsyncExitStack()

    async def start(self) -> None:
        """Start both."""
        for name, stack in (("first", self._first), ("second", self._second)):
            folder = self._folder / name
            folder.mkdir()
            server = await stack.enter_async_context(serving(folder, store=str(self._location)))
            self.targets.append(server.target)

    async def stop_first(self) -> None:
        """Drain the first."""
        await self._first.aclose()

    async def stop(self) -> None:
        """Stop what is left."""
        await self._first.aclose()
        await self._second.aclose()


@pytest.fixture
async def replicas(location: Location, tmp_path: Path) -> AsyncIterator[Replicas]:
    made = Replicas(location, tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_workers_of_two_servers_share_a_rule(replicas: Replicas) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(target)) for target in replicas.targets]
        await clients[0].rules.create(RULE, evaluators=[Cold()])
        await finish_runs(clients[1], RUN_IDS)
        done = await asyncio.gather(
            *(one.evaluations.process_stream(RULE, evaluators=[Cold()], until_caught_up=True) for one in clients)
        )
        assert sum(one.evaluated for one in done) == len(RUN_IDS)
        for client in clients:
            assert await result_scores(client) == Counter([(run_id, "Cold") for run_id in RUN_IDS])


async def test_a_worker_goes_on_at_the_other_server(replicas: Replicas) -> None:
    async with AsyncClient(replicas.targets[1]) as other, AsyncClient(replicas.targets) as client:
        await other.rules.create(RULE, evaluators=[Cold()])
        live = asyncio.create_task(finish_runs(other, RUN_IDS))
        judged: list[str] = []
        some, all_of_them = asyncio.Event(), asyncio.Event()

        def note(run: EvaluatedRun) -> None:
            judged.append(run.run.id)
            some.set()
            if len(judged) == len(RUN_IDS):
                all_of_them.set()

        work = asyncio.create_task(client.evaluations.process_stream(RULE, evaluators=[Cold()], on_evaluated=note))
        async with asyncio.timeout(40):
            await some.wait()
            await replicas.stop_first()
            await live
            await all_of_them.wait()
        work.cancel()
        await asyncio.wait([work])
        assert sorted(judged) == sorted(RUN_IDS)
        assert await result_scores(other) == Counter([(run_id, "Cold") for run_id in RUN_IDS])
