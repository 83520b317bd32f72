"""A thousand streams at once in one client: none waits for another to end."""

import asyncio

from lavant.client import AsyncClient
from support.calls import append, create
from support.events import run_finished, run_started
from support.server import ServerProcess, connected

STREAMS = 1_000


async def test_each_stream_gets_its_runs_events(server_process: ServerProcess, process_client: AsyncClient) -> None:
    """No run ends before every stream has its first event, so all are open together."""
    names = [f"run-{number}" for number in range(STREAMS)]
    all_begun = asyncio.Barrier(STREAMS + 1)

    async def read(name: str) -> list[str]:
        async with process_client.runs.stream(name) as stream:
            first = await anext(stream)
            await all_begun.wait()
            return [event.event_id for event in (first, *[event async for event in stream])]

    async with connected(server_process.target) as stubs, asyncio.TaskGroup() as tasks:
        begins, ends = [run_started() for _ in names], [run_finished() for _ in names]
        for name, begin in zip(names, begins, strict=True):
            await create(stubs, name)
            await append(stubs, [begin], run_id=name)
        reading = [tasks.create_task(read(name)) for name in names]
        await all_begun.wait()
        for name, end in zip(names, ends, strict=True):
            await append(stubs, [end], run_id=name, first=2)
    wanted = [[begin.event_id, end.event_id] for begin, end in zip(begins, ends, strict=True)]
    assert [task.result() for task in reading] == wanted
