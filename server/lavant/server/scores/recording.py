"""Records scores that people, or ground truth, give a run afterwards."""

from contextlib import suppress

from lavant.server.clock import Clock
from lavant.server.errors import data_loss, invalid_field
from lavant.server.measures import ScoreMeasures
from lavant.server.model import RunKey, beside, is_terminal
from lavant.server.scores.sources import RECORDED
from lavant.server.store.own_logs import OverwrittenError, OwnLogs
from lavant.server.store.port import Engine
from lavant.v1.event_pb2 import Event, RunStarted, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunFinished, RunKind, RunState

_NAME = "score"  # of the runs that hold one each
_READ_BYTES = 1 << 20


class Recorder:
    """Stores each score as a run of its own, whose log is written at once: it is there as a whole, once, or not."""

    def __init__(self, engine: Engine, clock: Clock, measures: ScoreMeasures | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._measures = measures or ScoreMeasures()
        self._logs = OwnLogs(engine, clock)

    async def record(self, tenant: str, score_id: str, recorded: ScoreRecorded) -> bool:
        """Record a score, given without what the server sets; tells whether it had been recorded before.

        Raises RUN_NOT_FOUND if there is no such run, INVALID_FIELD if another score has this id.
        """
        run = await self._engine.get_run(RunKey(tenant, recorded.subject_run_id))
        key = RunKey(beside(tenant, RECORDED), score_id)
        holder = await self._engine.create_run(key, Run(name=_NAME, kind=RunKind.RUN_KIND_EVALUATION))
        if not is_terminal(holder.state):
            with suppress(OverwrittenError):
                events = self._events(recorded, run)
                await self._logs.append(key, 0, events)
                self._measures.add(events)
                return False
        await self._check_same(key, recorded)
        return True

    def _events(self, recorded: ScoreRecorded, run: Run) -> list[Event]:
        told = ScoreRecorded()
        told.CopyFrom(recorded)
        told.subject_name = run.name
        told.subject_time.FromNanoseconds(self._clock.time_ns())
        if is_terminal(run.state):
            told.subject_time.CopyFrom(run.end_time)
        return [
            Event(run_started=RunStarted()),
            Event(score_recorded=told),
            Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)),
        ]

    async def _check_same(self, key: RunKey, recorded: ScoreRecorded) -> None:
        """Raise INVALID_FIELD unless what is stored is what the caller says; times are not the caller's."""
        for chunk in await self._engine.read(key, 0, _READ_BYTES):
            for event in EventBatch.FromString(chunk.data).events:
                if event.HasField("score_recorded"):
                    stored = event.score_recorded
                    stored.ClearField("subject_name")
                    stored.ClearField("subject_time")
                    if stored == recorded:
                        return
                    raise invalid_field("score_id", "was recorded with another score; choose another id")
        raise data_loss(f"the score {key.run_id} is missing")
