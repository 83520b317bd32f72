"""What all engines hold of a run: what it is created from, how it is told of, and when its producer is silent."""

from typing import Any

from lavant.server.errors import LavantError
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.port import Notice
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import Run, RunKind, RunState

_LARGEST_TIMEOUT_NS = 2**62


def settings_of(run: Run) -> Run:
    """What a run is created from, to be compared; without what the engine sets."""
    settings = Run(
        kind=run.kind or RunKind.RUN_KIND_AGENT,
        name=run.name,
        labels=run.labels,
        parent_run_id=run.parent_run_id,
        conversation_id=run.conversation_id,
    )
    if run.HasField("producer_timeout"):
        settings.producer_timeout.CopyFrom(run.producer_timeout)
    return settings


def new_log(key: RunKey, settings: Run, now_ns: int) -> LogState:
    """The log of a run that is created now; `settings` becomes its Run."""
    settings.run_id = key.run_id
    settings.state = RunState.RUN_STATE_QUEUED
    settings.create_time.FromNanoseconds(now_ns)
    return LogState(settings)


def run_exists(key: RunKey) -> LavantError:
    """A run of this name was created from other settings."""
    return LavantError(
        ErrorReason.ERROR_REASON_RUN_EXISTS,
        f"run {key.run_id} exists with other settings; choose another run_id",
        metadata={"run_id": key.run_id},
        resource=key.run_id,
    )


def run_not_ended(key: RunKey) -> LavantError:
    """Only ended runs are deleted."""
    return LavantError(
        ErrorReason.ERROR_REASON_RUN_NOT_ENDED,
        f"run {key.run_id} has not ended; cancel it first",
        metadata={"run_id": key.run_id},
    )


def notice_of(log: LogState, **more: Any) -> Notice:
    """Tell how a run stands, and what else is new."""
    run = log.run
    return Notice(
        last_sequence=run.last_sequence,
        sealed=log.sealed,
        producer_seen_ns=run.producer_seen_time.ToNanoseconds(),
        cancel_reason=None if log.sealed else log.cancel_reason,
        **more,
    )


def heard_ns(run: Run) -> int:
    """Tell when the producer was last heard from; a run just created counts as a sign."""
    return (run.producer_seen_time if run.HasField("producer_seen_time") else run.create_time).ToNanoseconds()


def timeout_ns(run: Run) -> int | None:
    """Tell how long the producer may be silent; None: for ever."""
    if not run.HasField("producer_timeout"):
        return None
    return max(0, min(run.producer_timeout.ToNanoseconds(), _LARGEST_TIMEOUT_NS))


def is_silent(log: LogState, since_ns: int, now_ns: int) -> bool:
    """Tell whether an open run's producer kept silent for too long, heard from at `since_ns` at the earliest."""
    timeout = timeout_ns(log.run)
    return not log.sealed and timeout is not None and max(heard_ns(log.run), since_ns) + timeout < now_ns
