"""Rules of runs that all engines share: settings, notices, and silence of producers."""

from typing import Any

from lavant.server.errors import ServiceError
from lavant.server.model import RunKey
from lavant.server.store.appending import LogState
from lavant.server.store.port import Notice
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import Run, RunKind, RunSettings, RunState

_LARGEST_TIMEOUT_NS = 2**62


def new_run(settings: Run | RunSettings) -> Run:
    """Return a run with these settings and nothing that the engine sets, also for comparison with those of another."""
    run = Run(
        kind=settings.kind or RunKind.RUN_KIND_AGENT,
        name=settings.name,
        labels=settings.labels,
        parent_run_id=settings.parent_run_id,
        conversation_id=settings.conversation_id,
    )
    if settings.HasField("producer_timeout"):
        run.producer_timeout.CopyFrom(settings.producer_timeout)
    return run


def check_settings(key: RunKey, run: Run, wanted: Run) -> None:
    """Raise RUN_EXISTS unless a run has the wanted settings; `wanted` is the result of `new_run`."""
    if new_run(run) != wanted:
        raise ServiceError(
            ErrorReason.ERROR_REASON_RUN_EXISTS,
            f"run {key.run_id} exists with other settings; choose another run_id",
            metadata={"run_id": key.run_id},
            resource=key.run_id,
        )


def new_log(key: RunKey, run: Run, now_ns: int) -> LogState:
    """Return the log of a run that is created now; `run` has its settings, and becomes its Run."""
    run.run_id = key.run_id
    run.state = RunState.RUN_STATE_QUEUED
    run.create_time.FromNanoseconds(now_ns)
    return LogState(run)


def run_not_ended(key: RunKey) -> ServiceError:
    """Return the error for deleting a run that has not ended."""
    return ServiceError(
        ErrorReason.ERROR_REASON_RUN_NOT_ENDED,
        f"run {key.run_id} has not ended; cancel it first",
        metadata={"run_id": key.run_id},
    )


def notice_of(log: LogState, **more: Any) -> Notice:
    """Return a notice with the current state of a run; `more` are further fields of it."""
    run = log.run
    return Notice(
        last_sequence=run.last_sequence,
        sealed=log.sealed,
        producer_seen_ns=run.producer_seen_time.ToNanoseconds(),
        cancel_reason=None if log.sealed else log.cancel_reason,
        created_ns=run.create_time.ToNanoseconds(),
        **more,
    )


def producer_seen_ns(run: Run) -> int:
    """Return when a producer last sent a batch, in wall time; the run's creation counts as one."""
    return (run.producer_seen_time if run.HasField("producer_seen_time") else run.create_time).ToNanoseconds()


def timeout_ns(run: Run) -> int | None:
    """Return how long producers may be silent, in nanoseconds; None: without limit."""
    if not run.HasField("producer_timeout"):
        return None
    return max(0, min(run.producer_timeout.ToNanoseconds(), _LARGEST_TIMEOUT_NS))


def is_silent(log: LogState, since_ns: int, now_ns: int) -> bool:
    """Return whether a run is open and its producers have been silent for too long.

    Silence is counted from wall time `since_ns` at the earliest.
    """
    timeout = timeout_ns(log.run)
    return not log.sealed and timeout is not None and max(producer_seen_ns(log.run), since_ns) + timeout < now_ns
