"""Composition of what follows scores: their index, rules, and alerts with their webhooks."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import apsw

from lavant.server.app.settings import Settings
from lavant.server.clock import Clock
from lavant.server.errors import StartError
from lavant.server.evaluation.directory import RuleDirectory
from lavant.server.evaluation.rules import Rules
from lavant.server.metrics import ServerMetrics
from lavant.server.scores.alerts.addresses import allowed
from lavant.server.scores.alerts.checks import Alerting, RulesOf
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.statuses import AlertStatuses
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.scores.query.scored_runs import ScoredRuns
from lavant.server.store.port import Engine
from lavant.server.streaming.leases import ConsumerLeases


@dataclass(frozen=True, slots=True)
class Scoring:
    """The index of scores, the rules that record them, and what depends on both."""

    index: ScoreIndex
    follower: Follower
    statuses: AlertStatuses
    rules: Rules
    rules_of: RulesOf


@asynccontextmanager
async def scoring(
    settings: Settings,
    engine: Engine,
    leases: ConsumerLeases,
    clock: Clock,
    metrics: ServerMetrics,
    tenants_with_rules: Callable[[], Sequence[str]],
) -> AsyncIterator[Scoring]:
    """Index scores and evaluate alerts for the length of the block. Raises StartError if the index cannot be opened."""
    async with AsyncExitStack() as stack:
        index = await _open_index(settings, engine)
        stack.push_async_callback(index.close)
        follower = await stack.enter_async_context(Follower(engine, index, clock))
        limits = {"max_rules": settings.max_rules, "max_alerts": settings.max_alerts}
        rules = Rules(engine, clock, ScoredRuns(index, follower), metrics.scores, **limits)
        stack.push_async_callback(rules.close)
        is_allowed = partial(allowed, prefixes=settings.webhooks)
        directory = RuleDirectory(engine, clock, rules)
        stack.callback(directory.close)
        logs = AlertLogs(engine, clock, tenants_with_rules)
        stack.callback(logs.close)
        await stack.enter_async_context(
            Alerting(index=index, follower=follower, clock=clock, logs=logs, rules_of=directory.of, allowed=is_allowed)
        )
        if settings.webhooks:
            from lavant.server.scores.alerts.webhooks import WebhookSender  # imports httpx, which takes 100 ms

            await stack.enter_async_context(
                WebhookSender(clock=clock, logs=logs, leases=leases, rules_of=directory.of, allowed=is_allowed)
            )
        yield Scoring(index, follower, AlertStatuses(index, follower, logs, clock), rules, directory.of)


async def _open_index(settings: Settings, engine: Engine) -> ScoreIndex:
    """Open the index beside a SQLite store; the index of a shared store is temporary."""
    if engine.opening is None:
        return await ScoreIndex.open(None, engine.identity.epoch)
    path = settings.store_path.with_name(f"{settings.store_path.name}.scores")
    try:
        return await ScoreIndex.open(path, engine.identity.epoch, engine.opening)
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the index of scores {path}: {error}") from error
