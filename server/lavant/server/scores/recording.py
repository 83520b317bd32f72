"""Records scores that people, or ground truth, give a run afterwards."""

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.clock import Clock
from lavant.server.errors import LavantError, data_loss, invalid_field
from lavant.server.model import RunKey, beside, is_terminal
from lavant.server.scores.sources import PRODUCER, RECORDED
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import Event, RunStarted, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch, ProducerBatch
from lavant.v1.run_pb2 import Run, RunFinished, RunKind, RunState

_NAME = "score"  # of the runs that hold one each
_READ_BYTES = 1 << 20


class Recorder:
    """Stores each score as a run of its own, whose log is written at once: it is there as a whole, once, or not."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def record(self, tenant: str, score_id: str, recorded: ScoreRecorded) -> bool:
        """Record a score, given without what the server sets; tells whether it had been recorded before.

        Raises RUN_NOT_FOUND if there is no such run, INVALID_FIELD if another score has this id.
        """
        run = await self._engine.get_run(RunKey(tenant, recorded.subject_run_id))
        key = RunKey(beside(tenant, RECORDED), score_id)
        holder = await self._engine.create_run(key, Run(name=_NAME, kind=RunKind.RUN_KIND_EVALUATION))
        if not is_terminal(holder.state):
            try:
                receipt = await self._engine.append(key, self._batch(score_id, recorded, run))
            except LavantError as error:
                if error.reason != ErrorReason.ERROR_REASON_PRODUCER_CONFLICT:
                    raise
            else:
                return receipt.duplicate
        await self._check_same(key, recorded)
        return True

    def _batch(self, score_id: str, recorded: ScoreRecorded, run: Run) -> ProducerBatch:
        now = Timestamp()
        now.FromNanoseconds(self._clock.time_ns())
        told = ScoreRecorded()
        told.CopyFrom(recorded)
        told.subject_name = run.name
        told.subject_time.CopyFrom(run.end_time if is_terminal(run.state) else now)
        events = (
            Event(run_started=RunStarted()),
            Event(score_recorded=told),
            Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)),
        )
        for number, event in enumerate(events, 1):
            event.event_id = f"server.{number}"
            event.event_time.CopyFrom(now)
        return ProducerBatch(run_id=score_id, producer_id=PRODUCER, first_producer_sequence=1, events=events)

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
