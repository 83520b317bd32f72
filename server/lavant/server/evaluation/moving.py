"""Rules that go on in another store, where the feed of changes has other positions."""

from collections.abc import Callable, Iterable

from lavant.server.clock import Clock
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.ledger import Ledger
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.v1.rule_pb2 import Rule


async def go_on(engine: Engine, clock: Clock, rules: Iterable[RunKey], translate: Callable[[int], int]) -> None:
    """Have copied rules go on in their new store where they were in the old one.

    `translate` turns a position of the old feed into that of the new one behind the same changes. Each rule begins a
    segment with it. Nobody else may use the new store yet.
    """

    async def revise(rule: Rule, ledger: Ledger) -> Rule:
        ledger.position = translate(ledger.position)
        ledger.gaps = [gap._replace(after=translate(gap.after), until=translate(gap.until)) for gap in ledger.gaps]
        if ledger.look is not None and not ledger.look.mode:
            ledger.look = ledger.look._replace(position=translate(ledger.look.position))
        return rule

    desks = Desks(engine, clock)
    for rule in rules:
        with desks.at(rule) as counter:
            await counter.desk.revise(revise)
    await desks.close()
