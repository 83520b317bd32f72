"""What ends the time that a batch waits for further events: here an hour, so that nothing else does."""

import pytest

from lavant.client import AsyncClient, Client
from lavant.client._publishing import outbox
from support.server import ServerProcess


@pytest.fixture(autouse=True)
def hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LINGER", 3_600.0)


async def test_a_flush_ends_it(process_client: AsyncClient) -> None:
    run = process_client.runs.start("agent").begin()
    for _ in range(3):
        await run.text("x")
        assert await run.flush()
    await run.text("x")
    assert await process_client.flush()
    run.end()


async def test_the_end_of_the_block_ends_it(process_client: AsyncClient) -> None:
    async with process_client.runs.start("agent") as run:
        await run.text("x")
        await run.flush()
        await run.text("y")
    assert (await process_client.runs.get(run.id)).has_ended


async def test_a_full_batch_ends_it(process_client: AsyncClient) -> None:
    run = process_client.runs.start("agent").begin()
    assert await run.flush()
    for _ in range(outbox.FULL_EVENTS):
        await run.text("x")
    await run._publisher.changed.wait_for(lambda: run.last_receipt is not None and run.last_receipt.last_sequence > 1)
    run.end()


async def test_closing_the_client_ends_it(server_process: ServerProcess) -> None:
    async with AsyncClient(server_process.target) as client:
        run = client.runs.start("agent").begin()
        assert await run.flush()
        await run.text("x")
    async with AsyncClient(server_process.target) as client:
        assert "text_delta" in [event.type async for event in client.runs.events(run.id)]


def test_a_blocking_run_ends_it(server_process: ServerProcess) -> None:
    with Client(server_process.target) as client:
        with client.runs.start("agent") as run:
            run.text("x")
            assert run.flush()
            run.text("y")
            assert run.flush()
            run.text("z")
        assert client.runs.stream(run.id).text() == "xyz"
