"""The example of a production monitor: an agent gets worse, and better again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples import monitor
from lavant.client import AsyncClient
from support.calls import until
from support.clock import ManualClock
from support.server import serving
from support.web import serving_web


@pytest.fixture
async def pages() -> AsyncIterator[tuple[str, list[str]]]:
    """The receiver of the webhook on a port of its own, and what it received."""
    said: list[str] = []
    async with serving_web(monitor.receiver(said.append)) as web:
        yield f"{web.base_url}/", said


async def execute(client: AsyncClient, output: str, count: int) -> None:
    for _ in range(count):
        async with client.runs.start("weather-agent", on_error="raise") as run:
            run.output = output


async def test_an_agent_that_gets_worse_is_reported(
    tmp_path: Path, clock: ManualClock, pages: tuple[str, list[str]]
) -> None:
    prefix, paged = pages
    said: list[str] = []
    async with serving(tmp_path, clock=clock, webhooks=[prefix]) as server, AsyncClient(server.target) as client:
        arguments = ["--target", server.target, "--hook", f"{prefix}alerts", "--seconds", "60"]
        monitoring = asyncio.create_task(monitor.main(arguments, said.append))

        async def received(count: int) -> None:
            async with asyncio.timeout(30):
                while len(paged) < count or len(said) < count + 2:
                    clock.advance(0.05)  # at a pace at which leases are renewed, however slow the machine
                    await client.rules.get(monitor.RULE)

        await until(lambda: len(said) >= 2)
        assert said[0] == "impolite cannot fire: rule politeness recorded no Polite score in the last 15 min"
        await execute(client, "it is cold", 4)
        await execute(client, "Sorry, no idea", 4)
        await received(1)
        await execute(client, "it is cold", 40)
        await received(2)
        monitoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await monitoring
    assert [line.partition(":")[0] for line in said[2:]] == ["firing", "over"]
    assert paged == [f"page: {line.partition(': ')[2]}" for line in said[2:]]
    assert "below 0.8" in paged[0]


async def test_a_monitor_ends_after_its_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await monitor.main(["--target", server.target, "--seconds", "0.5"], list[str]().append)
