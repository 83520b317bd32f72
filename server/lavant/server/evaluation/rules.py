"""Rules as callers create, change and delete them."""

from dataclasses import dataclass
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, invalid_field
from lavant.server.evaluation.desk import Revision
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.feed import Gap, Look, Window
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.record import Record, settings_of
from lavant.server.evaluation.views import rule_view
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.server.streaming.frames import timestamp
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.rule_pb2 import BackfillMode, Rule

MOST_GAPS = 100
MOST_WINDOWS = 1_000  # of all gaps


class RulePage(NamedTuple):
    """Rules, the newest first, and where the next page begins; None: there is none."""

    rules: list[Rule]
    next_position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All of it safe to repeat, and to be done by several replicas at once."""

    engine: Engine
    desks: Desks
    clock: Clock

    async def create(self, tenant: str, rule: Rule) -> Rule:
        """Create a rule, or tell of the stored one if they are equal; else RULE_EXISTS."""
        key = RunKey(tenant, rule.rule_id)
        rulebook = self.desks.rulebook
        while True:
            found = await rulebook.find(key)
            if found is None:
                if await rulebook.add(key, await self._first_record(key, rule)):
                    return await self.get(key)
            elif found.deleted:
                await self._finish_deletion(key)
            elif settings_of(found.record.rule) == settings_of(rule):
                return await self.get(key)
            else:
                raise _rule_exists(rule.rule_id)

    async def get(self, key: RunKey) -> Rule:
        """Tell how a rule stands."""
        with self.desks.at(key) as counter:
            await counter.desk.refresh()
            return rule_view(counter.desk)

    async def list(self, tenant: str, limit: int, before: int | None) -> RulePage:
        """List rules, the newest first."""
        page = await self.desks.rulebook.list(tenant, limit, before)
        rules = []
        for rule_id in page.rule_ids:
            try:
                rules.append(await self.get(RunKey(tenant, rule_id)))
            except LavantError as error:
                if error.reason != ErrorReason.ERROR_REASON_RULE_NOT_FOUND:
                    raise
        return RulePage(rules, page.next_position)

    async def update(self, tenant: str, wanted: Rule) -> Rule:
        """Replace what callers may set of a rule; raises RULE_CHANGED unless it is at the revision that was given.

        What is so already is left so, whatever the revision: the answer to the first try may have been lost.
        """
        key = RunKey(tenant, wanted.rule_id)

        async def revise(rule: Rule, ledger: Ledger) -> Rule | None:
            if settings_of(wanted) == settings_of(rule):
                return None
            if wanted.revision not in (0, rule.revision):
                raise _rule_changed(rule)
            if rule.paused and not wanted.paused:
                await self._skip(tenant, ledger)
            return self._revised(rule, wanted)

        return await self._revise(key, revise)

    async def backfill(self, key: RunKey, window: Window, mode: "BackfillMode.ValueType") -> Rule:
        """Have a rule look at runs that it has not seen, or again at those that a mode selects.

        Raises BACKFILL_UNDER_WAY while it looks at others.
        """

        async def revise(rule: Rule, ledger: Ledger) -> Rule | None:
            if ledger.look is not None and not ledger.look.done:
                if (ledger.look.window, ledger.look.mode) == (window, mode):
                    return None
                raise _backfill_under_way(rule.rule_id)
            if mode:
                if mode == BackfillMode.BACKFILL_MODE_VERSION and not any(one.version for one in rule.evaluators):
                    raise invalid_field("mode", "must not be VERSION: the rule names no evaluator with a version")
                ledger.look = Look(window, 1, mode=mode)
                return rule
            if rule.paused:
                await self._skip(key.tenant, ledger)
            if sum(len(gap.windows) + 1 for gap in ledger.gaps) > MOST_WINDOWS:
                raise invalid_field("created_after", "was given in too many pieces before; leave both times out")
            ledger.look = Look(window, len(ledger.gaps), position=ledger.gaps[0].after if ledger.gaps else 0)
            return rule

        return await self._revise(key, revise)

    async def delete(self, key: RunKey) -> None:
        """Delete a rule; its scores stay."""
        with self.desks.at(key) as counter:
            await counter.desk.delete()

    async def _revise(self, key: RunKey, revise: Revision) -> Rule:
        with self.desks.at(key) as counter:
            await counter.desk.revise(revise)
            return rule_view(counter.desk)

    async def _skip(self, tenant: str, ledger: Ledger) -> None:
        """Leave all that changed by now to a look back."""
        position = await self.engine.last_change(tenant, ledger.position)
        if position == ledger.position:
            return
        looks_back = ledger.look is not None and not ledger.look.done
        last = ledger.gaps[-1] if ledger.gaps else None
        if last is not None and last.until == ledger.position and not last.windows and not looks_back:
            ledger.gaps[-1] = last._replace(until=position)
        elif len(ledger.gaps) < MOST_GAPS:
            ledger.gaps.append(Gap(ledger.position, position))
        else:
            raise invalid_field("rule.paused", "was set too often; have the rule look back before it goes on")
        ledger.position = position

    async def _first_record(self, key: RunKey, rule: Rule) -> Record:
        position = await self.engine.last_change(key.tenant)
        ledger = Ledger(1)
        ledger.position = position
        if position:
            ledger.gaps.append(Gap(0, position))
        first = settings_of(rule)
        first.revision = 1
        first.create_time.CopyFrom(timestamp(self.clock.time_ns()))
        first.update_time.CopyFrom(first.create_time)
        segment = await self.desks.rulebook.first_free_segment(key)
        return Record(rule=first, segment=segment, carried=ledger.carry())

    def _revised(self, rule: Rule, wanted: Rule) -> Rule:
        revised = settings_of(wanted)
        revised.revision = rule.revision + 1
        revised.create_time.CopyFrom(rule.create_time)
        revised.update_time.CopyFrom(timestamp(self.clock.time_ns()))
        return revised

    async def _finish_deletion(self, key: RunKey) -> None:
        try:
            await self.delete(key)
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_RULE_NOT_FOUND:  # somebody else has finished it
                raise


def _rule_exists(rule_id: str) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_RULE_EXISTS,
        f"rule {rule_id} exists with other settings; update it, or choose another rule_id",
        metadata={"rule_id": rule_id},
        resource=rule_id,
    )


def _rule_changed(rule: Rule) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_RULE_CHANGED,
        f"rule {rule.rule_id} is at revision {rule.revision}; read it again",
        metadata={"rule_id": rule.rule_id, "revision": str(rule.revision)},
    )


def _backfill_under_way(rule_id: str) -> LavantError:
    return LavantError(
        ErrorReason.ERROR_REASON_BACKFILL_UNDER_WAY,
        f"rule {rule_id} looks back at other runs; wait until that is done",
        metadata={"rule_id": rule_id},
    )
