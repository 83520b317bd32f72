"""A coordinator continues after any failure, and the failure of one caller does not affect the others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from lavant.server.errors import unavailable
from lavant.server.evaluation.coordinator import Coordinator
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.rules import Rules
from lavant.server.evaluation.sampler import selected
from lavant.server.model import RunKey
from lavant.server.store.chunk import Chunk
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_pb2 import Event
from lavant.v1.rule_pb2 import Rule
from support.calls import until
from support.clock import ManualClock
from support.engines import refused
from support.rules import a_rule

RULE = RunKey("default", "rule")


class Reach:
    """A store whose logs are out of reach for reading at times."""

    def __init__(self, engine: SQLiteEngine) -> None:
        self._read = engine.read
        self.lost = False
        engine.read = self.read  # type: ignore[method-assign]

    async def read(self, key: RunKey, after: int, max_bytes: int, created_ns: int | None = None) -> Sequence[Chunk]:
        if self.lost:
            raise unavailable("out of reach")
        return await self._read(key, after, max_bytes, created_ns)


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SQLiteEngine]:
    opened = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    yield opened
    await opened.close()


@pytest.fixture
async def coordinator(engine: SQLiteEngine, clock: ManualClock) -> AsyncIterator[Coordinator]:
    rules = Rules(engine, clock)
    await rules.create("default", a_rule())
    with rules.coordinator(RULE) as coordinator:
        yield coordinator
    await rules.close()


def selection(*run_ids: str) -> list[Event]:
    return [selected(run_ids, len(run_ids), live=str(7))]


def select(run_id: str, ledger: Ledger) -> list[Event]:
    return selection(run_id)


async def test_what_a_decision_raises_is_its_callers_alone(coordinator: Coordinator) -> None:
    def broken(ledger: Ledger) -> NoReturn:
        raise ZeroDivisionError

    async def broken_revision(rule: Rule, ledger: Ledger) -> NoReturn:
        raise ZeroDivisionError

    answers = await asyncio.gather(
        coordinator.decide(lambda _: selection("a")),
        coordinator.decide(broken),
        coordinator.decide(lambda _: selection("b")),
        coordinator.revise(broken_revision),
        coordinator.decide(lambda _: selection("c")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [list, ZeroDivisionError, list, ZeroDivisionError, list]
    assert list(coordinator.ledger.samples) == ["a", "b", "c"]


async def test_cancelled_callers_leave_the_others_alone(coordinator: Coordinator) -> None:
    callers = [asyncio.ensure_future(coordinator.decide(partial(select, str(n)))) for n in range(6)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    await asyncio.wait(callers)
    assert list(coordinator.ledger.samples) == ["1", "3", "5"]
    await coordinator.decide(lambda _: selection("on"))
    assert "on" in coordinator.ledger.samples


async def test_what_was_missed_while_the_store_was_out_of_reach_is_read_without_being_asked_for(
    engine: SQLiteEngine, coordinator: Coordinator, clock: ManualClock
) -> None:
    with coordinator.listening(lambda: None):
        await coordinator.read()
        reach = Reach(engine)
        other = Coordinator(RULE, engine, clock)
        await other.read()
        reach.lost = True
        await other.decide(lambda _: selection("a"))
        await coordinator.idle()
        with refused("UNAVAILABLE"):
            await coordinator.read()
        reach.lost = False

        async def known() -> bool:
            clock.advance(1)
            return list(coordinator.ledger.samples) == ["a"]

        await until(known)
