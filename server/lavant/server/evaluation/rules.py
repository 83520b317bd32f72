"""Rules: created, listed, changed and deleted by callers, each with one coordinator and one sampler in this process."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from lavant.server.clock import Clock
from lavant.server.errors import ServiceError, invalid_field
from lavant.server.evaluation.coordinator import Coordinator, Revision
from lavant.server.evaluation.ledger import Ledger, Pass, Window
from lavant.server.evaluation.log import RECORDS, Record, RuleLog, settings_of
from lavant.server.evaluation.sampler import Sampler
from lavant.server.evaluation.webhook_addresses import hide
from lavant.server.metrics import ScoreMetrics
from lavant.server.model import RunKey, beside
from lavant.server.scores.query.scored_runs import ScoredRuns
from lavant.server.store.port import Engine, RunPage, RunQuery
from lavant.server.store.system_logs import SystemLogs
from lavant.server.streaming.frames import timestamp
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.rule_pb2 import Backfill, BackfillMode, Rule
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import RunFilter

MOST_WINDOWS = 1_000  # of all gaps
_IDLE = 100  # unused ledgers that are kept
_PAGE = 100  # rules
_PAGE_BYTES = 1 << 20
_READ_AT_ONCE = 10  # rules of a page, of up to 64 KiB each, and about as much that the server adds
MAX_RULES = 200  # per tenant
MAX_ALERTS = 1_000
_ALIVE = RunFilter(states=[RunState.RUN_STATE_RUNNING])


class RulePage(NamedTuple):
    """Rules, the newest first, and where the next page begins; None: this is the last page."""

    rules: list[Rule]
    next_position: int | None


class Rules:
    """All rules of a store. Each operation is safe to repeat, and to run in several replicas at once."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        scored_runs: ScoredRuns | None = None,
        metrics: ScoreMetrics | None = None,
        *,
        max_rules: int = MAX_RULES,
        max_alerts: int = MAX_ALERTS,
    ) -> None:
        self._max_rules = max_rules
        self._max_alerts = max_alerts
        self._counting = asyncio.Lock()  # from the count of a tenant's rules until another one is stored
        self._engine = engine
        self._clock = clock
        self._scored_runs = scored_runs
        self._metrics = metrics
        self._samplers: OrderedDict[RunKey, Sampler] = OrderedDict()  # the most recently used ones are kept
        self._users: Counter[RunKey] = Counter()

    @contextmanager
    def sampler(self, rule: RunKey) -> Iterator[Sampler]:
        """Use the sampler of a rule, and its coordinator, for the length of the block."""
        sampler = self._samplers.get(rule)
        if sampler is None:
            coordinator = Coordinator(rule, self._engine, self._clock, self._metrics)
            sampler = self._samplers[rule] = Sampler(coordinator, self._engine, self._clock, self._scored_runs)
        self._samplers.move_to_end(rule)
        self._users[rule] += 1
        try:
            yield sampler
        finally:
            self._users[rule] -= 1
            if not self._users[rule]:
                del self._users[rule]
                idle = [key for key in self._samplers if key not in self._users]
                for key in idle[: max(0, len(idle) - _IDLE)]:
                    del self._samplers[key]

    @contextmanager
    def coordinator(self, rule: RunKey) -> Iterator[Coordinator]:
        """Use the coordinator of a rule for the length of the block."""
        with self.sampler(rule) as sampler:
            yield sampler.coordinator

    @property
    def workers(self) -> int:
        """Number of workers that this server serves."""
        return sum(len(sampler.workers) for sampler in self._samplers.values())

    async def close(self) -> None:
        """Wait until no rule has a decision pending."""
        for sampler in list(self._samplers.values()):
            await sampler.coordinator.idle()

    async def create(self, tenant: str, rule: Rule) -> Rule:
        """Create a rule, or return the stored one if they are equal; else raise RULE_EXISTS."""
        key = RunKey(tenant, rule.rule_id)
        with self.coordinator(key) as coordinator:
            while True:
                found = await coordinator.log.find()
                if found is None:
                    async with self._counting:
                        await self._check_room(tenant, rule)
                        first = await self._first_record(tenant, rule, coordinator.log)
                        is_created = await coordinator.log.append(first, after=None)
                    if is_created:
                        return await self.get(key)
                elif found.is_deleted:
                    with suppress_not_found():  # another replica has finished the deletion
                        await coordinator.delete()
                elif settings_of(found.rule) == settings_of(rule):
                    return await self.get(key)
                else:
                    raise _rule_exists(rule.rule_id)

    async def _check_room(self, tenant: str, rule: Rule) -> None:
        """Raise QUOTA_EXCEEDED if a tenant cannot have this rule besides its others."""
        others = [other for other in await self.all(tenant) if other.rule_id != rule.rule_id]
        if len(others) >= self._max_rules:
            raise _too_many("rules", self._max_rules)
        if sum(len(other.alerts) for other in (*others, rule)) > self._max_alerts:
            raise _too_many("alerts", self._max_alerts)

    async def get(self, key: RunKey) -> Rule:
        """Return a rule with its current progress."""
        with self.coordinator(key) as coordinator:
            await coordinator.read()
            return rule_view(coordinator)

    async def list(self, tenant: str, limit: int, before: int | None) -> RulePage:
        """List rules, the newest first: as many as fit a page, in number and in bytes."""
        rules: list[Rule] = []
        size, position = 0, before
        while True:
            page = await self._list_logs(tenant, min(_READ_AT_ONCE, limit - len(rules)), position)
            for run in page.runs:
                with suppress_not_found():
                    rules.append(await self.get(RunKey(tenant, run.run_id)))
                    size += rules[-1].ByteSize()
            position = page.next_position
            if position is None or len(rules) >= limit or size >= _PAGE_BYTES:
                return RulePage(rules, position)

    async def all(self, tenant: str) -> Sequence[Rule]:
        """Return all rules of a tenant with their settings, without what is derived from their ledgers."""
        logs = SystemLogs(self._engine, self._clock)
        rules: list[Rule] = []
        page = await self._list_logs(tenant, _PAGE, None)
        while True:
            for run in page.runs:
                record = await RuleLog(RunKey(tenant, run.run_id), self._engine, logs).find()
                if record is not None and not record.is_deleted:
                    rules.append(record.rule)
            if page.next_position is None:
                return rules
            page = await self._list_logs(tenant, _PAGE, page.next_position)

    async def update(self, key: RunKey, revision: int, change: Callable[[Rule], Rule]) -> Rule:
        """Change settings of a rule. Raises RULE_CHANGED if a `revision` other than 0 is not the rule's own.

        A rule that has the wanted settings is returned whatever its revision: the response to the first try may have
        been lost. `change` gets a copy of the settings and may be called several times.
        """

        async def revise(rule: Rule, ledger: Ledger) -> Rule | None:
            wanted = settings_of(change(settings_of(rule)))
            if wanted == settings_of(rule):
                return None
            if revision not in (0, rule.revision):
                raise _rule_changed(rule)
            if rule.paused and not wanted.paused:
                await self._skip(key.tenant, ledger)
            if len(wanted.alerts) > len(rule.alerts):
                await self._check_room(key.tenant, wanted)
            wanted.revision = rule.revision + 1
            wanted.create_time.CopyFrom(rule.create_time)
            wanted.update_time.CopyFrom(timestamp(self._clock.time_ns()))
            return wanted

        return await self._revise(key, revise)

    async def backfill(self, key: RunKey, window: Window, mode: "BackfillMode.ValueType") -> Rule:
        """Start a pass over runs that the rule has not examined, or over those that a mode selects again.

        Raises BACKFILL_UNDER_WAY during another pass.
        """

        async def revise(rule: Rule, ledger: Ledger) -> Rule | None:
            if ledger.backfill is not None and not ledger.backfill.done:
                if (ledger.backfill.window, ledger.backfill.mode) == (window, mode):
                    return None
                raise _backfill_under_way(rule.rule_id)
            if mode:
                if mode == BackfillMode.BACKFILL_MODE_VERSION and not any(one.version for one in rule.evaluators):
                    raise invalid_field("mode", "must not be VERSION: the rule names no evaluator with a version")
                ledger.backfill = Pass(window, 1, mode=mode)
                return rule
            if rule.paused:
                await self._skip(key.tenant, ledger)
            if sum(len(gap.windows) + 1 for gap in ledger.gaps) > MOST_WINDOWS:
                raise invalid_field("created_after", "was given in too many pieces before; leave both times out")
            ledger.backfill = Pass(window, len(ledger.gaps), position=ledger.gaps[0].after if ledger.gaps else 0)
            return rule

        return await self._revise(key, revise)

    async def delete(self, key: RunKey) -> None:
        """Delete a rule; its scores stay."""
        with self.coordinator(key) as coordinator:
            await coordinator.delete()

    async def move(self, rules: Iterable[RunKey], translate: Callable[[int], int]) -> None:
        """Have copied rules continue in this store from the same position in the feed of changes.

        `translate` turns a position of the old feed into the position after the same changes in the new one. Each rule
        begins a segment with it. Nothing else may use the store yet.
        """

        async def revise(rule: Rule, ledger: Ledger) -> Rule:
            ledger.position = translate(ledger.position)
            ledger.gaps = [gap._replace(after=translate(gap.after), until=translate(gap.until)) for gap in ledger.gaps]
            if ledger.backfill is not None and not ledger.backfill.mode:
                ledger.backfill = ledger.backfill._replace(position=translate(ledger.backfill.position))
            return rule

        for rule in rules:
            await self._revise(rule, revise)

    async def _revise(self, key: RunKey, revise: Revision) -> Rule:
        with self.coordinator(key) as coordinator:
            await coordinator.revise(revise)
            return rule_view(coordinator)

    async def _list_logs(self, tenant: str, limit: int, before: int | None) -> RunPage:
        query = RunQuery(tenant=beside(tenant, RECORDS), limit=limit, filter=_ALIVE)
        return await self._engine.list_runs(query, before)

    async def _skip(self, tenant: str, ledger: Ledger) -> None:
        """Leave all changes up to now to a backfill."""
        if not ledger.skip(await self._engine.last_change(tenant, ledger.position)):
            raise invalid_field("rule.paused", "was set too often; start a backfill of the rule first")

    async def _first_record(self, tenant: str, rule: Rule, log: RuleLog) -> Record:
        first = settings_of(rule)
        first.revision = 1
        first.create_time.CopyFrom(timestamp(self._clock.time_ns()))
        first.update_time.CopyFrom(first.create_time)
        ledger = Ledger(first.revision)
        await self._skip(tenant, ledger)
        return Record(first, await log.first_free_segment(), ledger.carry())


@contextmanager
def suppress_not_found() -> Iterator[None]:
    """Suppress RULE_NOT_FOUND: the rule was deleted meanwhile."""
    try:
        yield
    except ServiceError as error:
        if error.reason != ErrorReason.ERROR_REASON_RULE_NOT_FOUND:
            raise


def _too_many(kind: str, limit: int) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
        f"the tenant has {limit:,} {kind}, the most; delete some, or raise the setting max_{kind}",
        metadata={"kind": kind, "limit": str(limit)},
        resource=kind,
    )


def _rule_exists(rule_id: str) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_RULE_EXISTS,
        f"rule {rule_id} exists with other settings; update it, or choose another rule_id",
        metadata={"rule_id": rule_id},
        resource=rule_id,
    )


def _rule_changed(rule: Rule) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_RULE_CHANGED,
        f"rule {rule.rule_id} is at revision {rule.revision}; read it again",
        metadata={"rule_id": rule.rule_id, "revision": str(rule.revision)},
    )


def _backfill_under_way(rule_id: str) -> ServiceError:
    return ServiceError(
        ErrorReason.ERROR_REASON_BACKFILL_UNDER_WAY,
        f"rule {rule_id} has a backfill under way; wait until that is done",
        metadata={"rule_id": rule_id},
    )


def rule_view(coordinator: Coordinator) -> Rule:
    """Return a rule with all fields that the server sets, and with shortened addresses of webhooks."""
    view = Rule()
    view.CopyFrom(coordinator.record.rule)
    hide(view)
    view.evaluation_id = coordinator.segment.run_id
    view.progress.CopyFrom(coordinator.ledger.progress())
    if (backfill := coordinator.ledger.backfill) is not None:
        after, before = backfill.window
        message = Backfill(
            created_after=None if after is None else timestamp(after),
            created_before=None if before is None else timestamp(before),
            runs_examined=backfill.examined,
            runs_selected=backfill.selected,
            done=backfill.done,
            mode=backfill.mode,
        )
        view.backfill.CopyFrom(message)
    return view
