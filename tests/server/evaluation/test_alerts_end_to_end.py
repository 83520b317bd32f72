"""From a rule with an alert to its webhook: runs get low scores, then high ones, whichever server serves whom."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lavant.server.scores.alerts.log import ALERTS_RUN
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.event_service_pb2 import StreamEventsRequest
from support.calls import listed, until
from support.clock import ManualClock
from support.hook import Hook
from support.nats import fresh_location, without_streams
from support.rules import Worker, create_rule, finish
from support.server import Stubs, serving


@pytest.fixture
def hook() -> Iterator[Hook]:
    opened = Hook()
    yield opened
    opened.close()


@pytest.fixture(params=["file", "nats"])
async def pair(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, hook: Hook
) -> AsyncIterator[Sequence[Stubs]]:
    """Two servers that share a store, or one server twice."""
    async with AsyncExitStack() as stack:
        settings = {"clock": clock, "webhooks": [hook.prefix]}
        if request.param == "nats":
            location = fresh_location([request.getfixturevalue("nats")])
            await stack.enter_async_context(without_streams(location))
            settings["store"] = str(location)
        servers = [
            await stack.enter_async_context(serving(tmp_path, **settings))  # type: ignore[arg-type]
            for _ in range(2 if request.param == "nats" else 1)
        ]
        yield [servers[0].stubs, servers[-1].stubs]


async def changes(stubs: Stubs) -> list[AlertChanged]:
    """All changes of alerts."""
    return [event.alert_changed for event in await listed(stubs, ALERTS_RUN) if event.HasField("alert_changed")]


async def test_each_change_is_streamed_and_posted_once(pair: Sequence[Stubs], clock: ManualClock, hook: Hook) -> None:
    here, there = pair
    low = {"name": "low", "below": 0.5, "window": {"seconds": 3_600}, "webhook_url": f"{hook.prefix}low?token=hidden"}
    await create_rule(here, alerts=[low])
    worker = await Worker(there).opened()
    ids = await finish(here, [f"run-{number}" for number in range(4)])
    await worker.got(4)

    async def posted(count: int) -> None:
        def is_so() -> bool:
            clock.advance(0.05)  # at a pace at which leases are renewed, however slow the machine
            return len(hook.posts) >= count

        await until(is_so)

    await worker.complete(*ids[:2], correct=0.25)
    await posted(1)
    stream = there.events.StreamEvents(StreamEventsRequest(run_id=ALERTS_RUN, consumer_id="ui"))
    received: list[AlertChanged] = []
    async for frame in stream:
        received += [event.alert_changed for event in frame.events.events if event.HasField("alert_changed")]
        if len(received) == 1 and frame.HasField("events"):
            await worker.complete(*ids[2:], correct=1.0)
            await posted(2)
        if len(received) == 2:
            stream.cancel()
            break
    assert [(change.rule_id, change.alert, change.firing, change.value) for change in received] == [
        ("rule", "low", True, 0.25),
        ("rule", "low", False, 0.625),
    ]
    for _ in range(30):
        clock.advance(1)
        assert await changes(here) == await changes(there) == received
    posts = [(path, content["firing"]) for path, _, content in hook.posts]
    assert posts == [("/hooks/low?token=hidden", True), ("/hooks/low?token=hidden", False)]
    assert len({alert_id for _, alert_id, _ in hook.posts}) == 2
