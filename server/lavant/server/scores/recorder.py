"""Records scores of runs that people, or ground truth, provide afterwards."""

from lavant.server.clock import Clock
from lavant.server.errors import data_loss, invalid_field
from lavant.server.metrics import ScoreMetrics
from lavant.server.model import RunKey, beside, is_terminal
from lavant.server.store.port import Engine
from lavant.server.store.restrictions import Restriction, check_within
from lavant.server.store.system_logs import OverwrittenError, SystemLogs
from lavant.v1.event_pb2 import Event, RunStarted, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunFinished, RunKind, RunSettings, RunState

RECORDED = "scores"  # suffix of the tenant that keeps these scores, one run each
_SETTINGS = RunSettings(name="score", kind=RunKind.RUN_KIND_EVALUATION)  # of the runs that hold one score each
_READ_BYTES = 1 << 20


class Recorder:
    """Stores each score as a run of its own, whose log is written at once: completely, once, or not at all."""

    def __init__(self, engine: Engine, clock: Clock, metrics: ScoreMetrics | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._metrics = metrics or ScoreMetrics()
        self._logs = SystemLogs(engine, clock)

    async def record(
        self, tenant: str, score_id: str, recorded: ScoreRecorded, within: Restriction | None = None
    ) -> bool:
        """Record a score without the fields that the server sets; return whether it had been recorded before.

        Raises RUN_NOT_FOUND if there is no such run that `within` allows, INVALID_FIELD if another score has this ID.
        """
        run = check_within(within, await self._engine.get_run(RunKey(tenant, recorded.subject_run_id)))
        key = RunKey(beside(tenant, RECORDED), score_id)
        events = self._events(recorded, run)
        try:
            await self._logs.append(key, 0, events, create=_SETTINGS)
        except OverwrittenError:
            await self._check_same(key, recorded)
            return True
        self._metrics.add(events)
        return False

    def _events(self, recorded: ScoreRecorded, run: Run) -> list[Event]:
        complete = ScoreRecorded()
        complete.CopyFrom(recorded)
        complete.subject_name = run.name
        complete.subject_time.FromNanoseconds(self._clock.time_ns())
        if is_terminal(run.state):
            complete.subject_time.CopyFrom(run.end_time)
        return [
            Event(run_started=RunStarted()),
            Event(score_recorded=complete),
            Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)),
        ]

    async def _check_same(self, key: RunKey, recorded: ScoreRecorded) -> None:
        """Raise INVALID_FIELD unless the stored score equals the caller's, except for the server's times."""
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
