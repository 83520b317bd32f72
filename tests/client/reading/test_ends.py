"""Every run that begins ends, however its block is left, also if it never is."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from lavant.client import AsyncClient, AsyncRunProducer, Client, RunState
from lavant.v1.event_pb2 import CustomEvent, Event
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED, RunFinished
from support.calls import until
from support.server import ServerProcess

CANCELLATIONS = 30  # as many moments as a run's beginning and end have


async def state_of(client: AsyncClient, run_id: str) -> RunState:
    return (await client.runs.wait(run_id, timeout=10)).state


async def work(client: AsyncClient, run_id: str, entered: Callable[[], None] = lambda: None) -> None:
    async with client.runs.start("agent", run_id=run_id) as run:
        entered()
        while True:
            await run.custom("a.b", 1)
            await asyncio.sleep(0)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_task_cancelled_at_any_moment_ends_its_run_as_cancelled(client: AsyncClient, times: int) -> None:
    for moment in range(CANCELLATIONS):
        task = asyncio.create_task(work(client, f"run-{moment}"))
        for _ in range(1 + moment):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await state_of(client, f"run-{moment}") is RunState.CANCELLED


async def test_a_strict_run_cancelled_while_it_is_created_ends(client: AsyncClient) -> None:
    for moment in range(1, CANCELLATIONS):
        entered = asyncio.Event()

        async def enter(run_id: str, entered: asyncio.Event = entered) -> None:
            async with client.runs.start("agent", run_id=run_id, on_error="raise"):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(enter(f"run-{moment}"))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await state_of(client, f"run-{moment}") is RunState.CANCELLED
        if entered.is_set():
            break


async def test_a_cancelled_anyio_scope_ends_the_runs_within_as_cancelled(client: AsyncClient) -> None:
    inside = asyncio.Semaphore(0)
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(work, client, f"run-{number}", inside.release)
        for _ in range(5):
            await inside.acquire()
        group.cancel_scope.cancel()
    # In a cancelled scope every wait is cut short, but the end was durable when the scope was left.
    assert {(await client.runs.get(f"run-{number}")).state for number in range(5)} == {RunState.CANCELLED}


async def test_a_client_within_the_cancelled_scope_delivers_all_the_same(server_process: ServerProcess) -> None:
    with anyio.CancelScope() as scope:
        async with AsyncClient(server_process.target) as client:
            await work(client, "run", scope.cancel)
    async with AsyncClient(server_process.target) as client:
        assert await state_of(client, "run") is RunState.CANCELLED


async def test_a_generator_that_is_never_closed_ends_its_run(client: AsyncClient) -> None:
    async def words() -> AsyncIterator[str]:
        async with client.runs.start("agent", run_id="run") as run:
            await run.text("It ")
            yield "It "

    async for _ in words():
        break
    assert await state_of(client, "run") is RunState.CANCELLED


async def test_closing_the_client_ends_the_runs_that_are_open(
    server_process: ServerProcess, process_client: AsyncClient
) -> None:
    async with AsyncClient(server_process.target) as closing:
        open_run = closing.runs.start("agent", run_id="run").begin()
        await open_run.text("It is ")
    await open_run.text("never said")
    open_run.end()
    result = (await process_client.runs.wait("run", timeout=10)).result
    assert result is not None
    assert result.state is RunState.CANCELLED
    assert result.error is not None
    assert "client was closed before the run was ended" in result.error.message


def test_closing_a_blocking_client_ends_the_runs_that_are_open(server_process: ServerProcess) -> None:
    with Client(server_process.target) as closing:
        closing.runs.start("agent", run_id="run").begin().text("It is ")
    with Client(server_process.target) as client:
        assert client.runs.wait("run", timeout=10).state is RunState.CANCELLED


async def test_begin_and_end_never_wait_and_may_be_called_twice(client: AsyncClient) -> None:
    run = client.runs.start("agent").begin().begin()
    run.output = 1
    run.end()
    run.end(ValueError("too late"))
    assert await run.flush()
    ended = await client.runs.get(run.id)
    assert (ended.state, ended.result and ended.result.output) == (RunState.SUCCEEDED, 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, RunState.SUCCEEDED),
        (ValueError("no"), RunState.FAILED),
        (asyncio.CancelledError(), RunState.CANCELLED),
        (GeneratorExit(), RunState.CANCELLED),
    ],
)
async def test_end_takes_the_state_from_the_error(
    client: AsyncClient, error: BaseException | None, state: RunState
) -> None:
    run = client.runs.start("agent").begin()
    run.end(error)
    assert await state_of(client, run.id) is state


EXITS = {
    "a run of the blocking client": "Client(target).runs.start('agent', run_id='run').begin().text('x')",
    "a run whose loop has ended": """
        async def main():
            run = AsyncClient(target).runs.start("agent", run_id="run").begin()
            await run.text("x")
            await run.flush()
            kept.append(run)
        asyncio.run(main())
        """,
    "a generator that is open when its loop ends": """
        async def words():
            async with AsyncClient(target).runs.start("agent", run_id="run") as run:
                await run.text("x")
                yield "x"
        async def main():
            kept.append(words())
            await anext(kept[0])
        asyncio.run(main())
        """,
    "a run whose loop was closed over it": """
        async def main():
            await AsyncClient(target).runs.start("agent", run_id="run").begin().text("x")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    "a run of a loop that is not closed": """
        async def main():
            await AsyncClient(target).runs.start("agent", run_id="run").begin().text("x")
        asyncio.new_event_loop().run_until_complete(main())
        """,
    "a run of a loop in another thread": """
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        async def main():
            await AsyncClient(target).runs.start("agent", run_id="run").begin().text("x")
        asyncio.run_coroutine_threadsafe(main(), loop).result()
        """,
    "sys.exit": "Client(target).runs.start('agent', run_id='run').begin().text('x'); sys.exit(0)",
}
PREAMBLE = (
    "import asyncio, sys, threading\nfrom lavant.client import AsyncClient, Client\ntarget, kept = sys.argv[1], []\n"
)


@pytest.mark.parametrize("script", EXITS.values(), ids=EXITS.keys())
def test_a_run_that_is_open_when_the_process_exits_ends_as_cancelled(
    server_process: ServerProcess, script: str
) -> None:
    code = PREAMBLE + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code, server_process.target], timeout=30, check=False)
    assert done.returncode == 0
    with Client(server_process.target) as client:
        run = client.runs.get("run")
        assert run.state is RunState.CANCELLED
        assert "text_delta" in [event.type for event in client.runs.events("run")]


def test_a_forked_child_leaves_the_run_of_its_parent_alone(server_process: ServerProcess) -> None:
    code = PREAMBLE + textwrap.dedent(
        """
        import os
        with Client(target).runs.start("agent", run_id="run") as run:
            run.text("parent")
            if not (child := os.fork()):
                run.text("child")
                sys.exit(0)
            os.waitpid(child, 0)
        """
    )
    subprocess.run([sys.executable, "-c", code, server_process.target], timeout=30, check=True)
    with Client(server_process.target) as client:
        assert client.runs.get("run").state is RunState.SUCCEEDED
        assert client.runs.stream("run").text() == "parent"


def test_a_run_for_which_no_thread_can_be_started_is_sent_later(
    server_process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = threading.Thread.start, iter(range(4))

    def refuse_some(thread: threading.Thread) -> None:
        if thread.name == "lavant" and next(refusals, None) is not None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_some)
    with Client(server_process.target) as client:
        with client.runs.start("agent") as run:
            run.text("It is ")
            run.text("cold.")
        assert client.flush(10)
        assert next(refusals, None) is None
        assert client.runs.get(run.id).state is RunState.SUCCEEDED
        assert client.runs.stream(run.id).text() == "It is cold."


async def test_a_browser_that_leaves_ends_the_run_it_was_shown(client: AsyncClient) -> None:
    async def words() -> AsyncIterator[str]:
        async with client.runs.start("agent", run_id="run") as run:
            while True:
                await run.text("word ")
                yield "word "
                await asyncio.sleep(0.01)

    async def ask(_: Request) -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/plain")

    web = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", ask)]), port=0, log_level="error"))
    serving = asyncio.create_task(web.serve())
    await until(lambda: web.started)
    host, port = web.servers[0].sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"word ")
    writer.close()
    assert await state_of(client, "run") is RunState.CANCELLED
    web.should_exit = True
    await serving


def test_a_blocking_generator_that_is_dropped_ends_its_run(server_process: ServerProcess) -> None:
    with Client(server_process.target) as client:

        def words() -> Iterator[str]:
            with client.runs.start("agent", run_id="run") as run:
                run.text("It ")
                yield "It "

        for _ in words():
            break
        assert client.runs.get("run").state is RunState.CANCELLED


async def test_a_last_event_that_the_caller_publishes_ends_the_run(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.publish(Event(run_finished=RunFinished(state=RUN_STATE_SUCCEEDED, output_json="1")))
        await run.text("too late")
        run.output = 2
    ended = await client.runs.get(run.id)
    assert (ended.state, ended.result and ended.result.output) == (RunState.SUCCEEDED, 1)


async def test_publishing_from_another_thread_reaches_the_log(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:

        def publish(run: AsyncRunProducer) -> None:
            for _ in range(100):
                run.enqueue(Event(custom=CustomEvent(name="a.b")))

        await asyncio.to_thread(publish, run)
    events = [event.type async for event in client.runs.events(run.id, page_size=1_000)]
    assert events.count("custom") == 100
