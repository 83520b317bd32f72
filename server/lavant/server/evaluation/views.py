"""A rule as callers see it."""

from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.feed import Look
from lavant.server.streaming.frames import timestamp
from lavant.v1.rule_pb2 import Backfill, Rule


def rule_view(desk: Desk) -> Rule:
    """A rule with all that the server sets."""
    view = Rule()
    view.CopyFrom(desk.entry.record.rule)
    view.evaluation_id = desk.segment.run_id
    view.progress.CopyFrom(desk.ledger.progress())
    if desk.ledger.look is not None:
        view.backfill.CopyFrom(_backfill(desk.ledger.look))
    return view


def _backfill(look: Look) -> Backfill:
    after, before = look.window
    return Backfill(
        created_after=None if after is None else timestamp(after),
        created_before=None if before is None else timestamp(before),
        runs_seen=look.seen,
        runs_drawn=look.drawn,
        done=look.done,
        mode=look.mode,
    )
