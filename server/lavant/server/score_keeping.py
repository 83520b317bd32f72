"""Keeps scores at hand while a server runs: the index, who reads on for it, and who watches over alerts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import StartError
from lavant.server.scores.alert_log import AlertLog
from lavant.server.scores.alert_statuses import AlertStatuses
from lavant.server.scores.alerting import Alerting, RulesOf
from lavant.server.scores.follower import Follower
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.scored_runs import ScoredRuns
from lavant.server.scores.webhooks import allowed
from lavant.server.settings import Settings
from lavant.server.store.port import Engine
from lavant.server.streaming.places import Places

_TENANTS = ("default",)


@dataclass(frozen=True, slots=True)
class Scores:
    """What is asked for scores."""

    index: ScoreIndex
    follower: Follower
    statuses: AlertStatuses
    scored_runs: ScoredRuns


@asynccontextmanager
async def keeping_scores(
    settings: Settings, engine: Engine, places: Places, clock: Clock, rules_of: RulesOf
) -> AsyncIterator[Scores]:
    """Keep scores for the length of the block. Raises StartError if the index cannot be opened."""
    async with AsyncExitStack() as stack:
        index = await _open_index(settings, engine)
        stack.push_async_callback(index.close)
        follower = await stack.enter_async_context(Follower(engine, index, clock, _TENANTS))
        is_allowed = partial(allowed, prefixes=settings.webhooks)
        logs = [AlertLog(engine, clock, tenant) for tenant in _TENANTS]
        for log in logs:
            stack.callback(log.close)
        await stack.enter_async_context(
            Alerting(index=index, follower=follower, clock=clock, logs=logs, rules_of=rules_of, allowed=is_allowed)
        )
        if settings.webhooks:
            from lavant.server.scores.posting import Poster  # httpx takes its time to import

            await stack.enter_async_context(
                Poster(clock=clock, logs=logs, places=places, rules_of=rules_of, allowed=is_allowed)
            )
        yield Scores(index, follower, AlertStatuses(index, follower, logs, clock), ScoredRuns(index, follower))


async def _open_index(settings: Settings, engine: Engine) -> ScoreIndex:
    """Open the index beside a store of this process's own; one of a shared store goes with the process."""
    if engine.opening is None:
        return await ScoreIndex.open(None, engine.identity.epoch)
    path = settings.store_path.with_name(f"{settings.store_path.name}.scores")
    try:
        return await ScoreIndex.open(path, engine.identity.epoch, engine.opening)
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the index of scores {path}: {error}") from error
