"""Segments of a rule's results: how each begins and ends."""

from lavant.server.errors import LavantError
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.record import Record, segment_of, segment_run
from lavant.server.model import RunKey
from lavant.server.store.own_logs import OverwrittenError, OwnLogs
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import EvaluationPlan, Event, RunStarted
from lavant.v1.run_pb2 import RunFinished, RunState

OVER = (ErrorReason.ERROR_REASON_RUN_SEALED, ErrorReason.ERROR_REASON_RUN_NOT_FOUND)


class Segments:
    """Begins and ends the segments that records name; harmless when repeated, by whichever replica."""

    def __init__(self, engine: Engine, logs: OwnLogs) -> None:
        self._engine = engine
        self._logs = logs

    async def begin(self, rule: RunKey, record: Record) -> int:
        """Have a segment begun; tells its last sequence."""
        key = segment_of(rule, record.segment)
        try:
            run = await self._engine.get_run(key)
        except LavantError as error:
            if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
                raise
            run = await self._engine.create_run(key, segment_run(rule.run_id))
        if run.last_sequence:
            return run.last_sequence
        plan = EvaluationPlan(rule_id=rule.run_id, evaluators=record.rule.evaluators)
        try:
            await self._logs.append(key, 0, [Event(run_started=RunStarted(evaluation=plan))])
        except OverwrittenError:
            return (await self._engine.get_run(key)).last_sequence
        return 1

    async def seal(self, rule: RunKey, record: Record) -> None:
        """Seal the last segment of a deleted rule, before somebody else who has not heard of it begins it."""
        try:
            await self.begin(rule, record)
            while not await self._sealed(segment_of(rule, record.segment), record.ledger()):
                pass
        except LavantError as error:
            if error.reason not in OVER:
                raise

    async def _sealed(self, key: RunKey, ledger: Ledger) -> bool:
        """Seal a segment as it stands; tells whether nobody else was first."""
        run = await self._engine.get_run(key)
        async for event in self._logs.read(key, 0, run.last_sequence):
            ledger.fold(event)
        if ledger.sequence and not ledger.sealed:
            try:
                await self._logs.append(key, ledger.sequence, [end_of(ledger)])
            except OverwrittenError:
                return False
        return True


def end_of(ledger: Ledger) -> Event:
    """What seals a segment: the sums of its rows."""
    return Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED, evaluation=ledger.sums.summary()))
