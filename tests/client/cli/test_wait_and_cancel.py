"""`lavant wait` and `lavant cancel`."""

import pytest

from client.cli.conftest import Lavant, Start
from lavant.client import AsyncClient
from lavant.v1.run_pb2 import RunState
from support.calls import append, create
from support.events import run_finished, run_started
from support.server import Server


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        (RunState.RUN_STATE_SUCCEEDED, 0, "run succeeded\n"),
        (RunState.RUN_STATE_FAILED, 10, "run failed: ValueError: it broke\n"),
        (RunState.RUN_STATE_CANCELLED, 11, "run cancelled: ValueError: it broke\n"),
        (RunState.RUN_STATE_TIMED_OUT, 12, "run timed_out: ValueError: it broke\n"),
        (RunState.RUN_STATE_ABANDONED, 13, "run abandoned: ValueError: it broke\n"),
    ],
)
async def test_the_exit_status_is_that_of_the_outcome(
    server: Server, lavant: Lavant, state: "RunState.ValueType", status: int, said: str
) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started(), run_finished(state)])
    ended = await lavant("wait", "run")
    assert (ended.status, ended.out, ended.err) == (status, said, "")
    quiet = await lavant("wait", "run", "--quiet")
    assert (quiet.status, quiet.out, quiet.err) == (status, "", "")


async def test_a_wait_may_be_limited(client: AsyncClient, lavant: Lavant) -> None:
    await client.runs.create("agent", run_id="r")
    ended = await lavant("wait", "r", "--timeout", "0.1")
    assert (ended.status, ended.out) == (124, "")
    assert ended.err.startswith("lavant: run r is queued after 0.1 s: ")


async def test_a_wait_ends_with_the_run(client: AsyncClient, start: Start) -> None:
    async with client.runs.start("agent", run_id="r"):
        process = await start("wait", "r")
    assert (await process.ended()).status == 0


async def test_cancel_asks_the_producer(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("agent", run_id="r") as run:
        asked = await lavant("cancel", "r", "--reason", "too slow")
        assert (asked.status, asked.out) == (0, "cancellation of r is requested\n")
        await run.wait_cancelled()
        assert run.cancel_reason == "too slow"
    assert (await lavant("cancel", "r")).out == "r has already ended: succeeded\n"
    assert (await lavant("cancel", "nowhere")).status == 1
