"""A desk goes on after whatever went wrong, and what one caller does is no other's misfortune."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from lavant.server.errors import unavailable
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.feed import drawn_event, live_position
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.rules import Rules
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
async def desk(engine: SQLiteEngine, clock: ManualClock) -> AsyncIterator[Desk]:
    desks = Desks(engine, clock)
    await Rules(engine=engine, desks=desks, clock=clock).create("default", a_rule())
    with desks.at(RULE) as counter:
        yield counter.desk
        await counter.desk.idle()


def drawing(*run_ids: str) -> list[Event]:
    return [drawn_event(run_ids, len(run_ids), live_position(7))]


def drawn(run_id: str, ledger: Ledger) -> list[Event]:
    return drawing(run_id)


async def test_what_a_decision_raises_is_its_callers_alone(desk: Desk) -> None:
    def broken(ledger: Ledger) -> NoReturn:
        raise ZeroDivisionError

    async def broken_revision(rule: Rule, ledger: Ledger) -> NoReturn:
        raise ZeroDivisionError

    answers = await asyncio.gather(
        desk.decide(lambda _: drawing("a")),
        desk.decide(broken),
        desk.decide(lambda _: drawing("b")),
        desk.revise(broken_revision),
        desk.decide(lambda _: drawing("c")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [list, ZeroDivisionError, list, ZeroDivisionError, list]
    assert list(desk.ledger.samples) == ["a", "b", "c"]


async def test_cancelled_callers_leave_the_others_alone(desk: Desk) -> None:
    callers = [asyncio.ensure_future(desk.decide(partial(drawn, str(n)))) for n in range(6)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    await asyncio.wait(callers)
    assert list(desk.ledger.samples) == ["1", "3", "5"]
    await desk.decide(lambda _: drawing("on"))
    assert "on" in desk.ledger.samples


async def test_what_was_missed_while_the_store_was_out_of_reach_is_read_without_being_asked_for(
    engine: SQLiteEngine, desk: Desk, clock: ManualClock
) -> None:
    desk.listen("somebody", lambda: None)
    await desk.refresh()
    reach = Reach(engine)
    other = Desk(RULE, engine, clock, Desks(engine, clock).rulebook)
    await other.refresh()
    reach.lost = True
    await other.decide(lambda _: drawing("a"))
    await desk.idle()
    with refused("UNAVAILABLE"):
        await desk.refresh()
    reach.lost = False

    async def known() -> bool:
        clock.advance(1)
        return list(desk.ledger.samples) == ["a"]

    await until(known)
    desk.forget("somebody")
