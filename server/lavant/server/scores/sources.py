"""Where scores are recorded: in logs of the server's own, found by the feeds of changes of two tenants."""

import asyncio
from collections.abc import Sequence

from lavant.contract.limits import OWN_RUNS
from lavant.server.errors import LavantError
from lavant.server.model import RESULTS_OF_RULES, RunKey, beside, is_terminal
from lavant.server.scores.intake import LogProgress
from lavant.server.scores.rows import Found, Source
from lavant.server.store.port import Engine, RunQuery
from lavant.server.streaming.selection import Selection, Span, type_mask
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.event_pb2 import EventType
from lavant.v1.event_service_pb2 import DeltaMode
from lavant.v1.run_pb2 import Run, RunKind, RunState
from lavant.v1.run_service_pb2 import RunFilter

RECORDED = "scores"  # the tenant beside the caller's that RecordScore's scores are kept in, one run each
_PAGE = 500  # runs
_AT_ONCE = 50  # runs that are read together
_READ_BYTES = 1 << 20
_SEALING = EventType.EVENT_TYPE_RUN_FINISHED
_SCORES = type_mask([EventType.EVENT_TYPE_SCORE_RECORDED])
_ENDED = RunFilter(states=[state for state in RunState.values() if is_terminal(state)])
_RESULTS = RunFilter(kinds=[RunKind.RUN_KIND_EVALUATION], labels=RESULTS_OF_RULES)


def recorded(tenant: str) -> RunQuery:
    """The runs that each hold one score by RecordScore."""
    return RunQuery(tenant=beside(tenant, RECORDED), limit=_PAGE, filter=_ENDED)


def results(tenant: str) -> RunQuery:
    """The runs that rules' results are in, among others that only look so: see `is_result`."""
    return RunQuery(tenant=tenant, limit=_PAGE, filter=_RESULTS)


def is_result(run: Run) -> bool:
    """Tell whether the server itself wrote it."""
    return run.run_id.startswith(OWN_RUNS)


async def read_recorded(engine: Engine, tenant: str, runs: Sequence[Run]) -> list[Found]:
    """Read the scores of `recorded` runs."""
    found: list[Found] = []
    for start in range(0, len(runs), _AT_ONCE):
        keys = [(RunKey(beside(tenant, RECORDED), run.run_id), run) for run in runs[start : start + _AT_ONCE]]
        reads = [read_on(engine, tenant, key, LogProgress(run.create_time.ToNanoseconds())) for key, run in keys]
        found += [scores for scores, _ in await asyncio.gather(*reads)]
    return found


async def read_on(engine: Engine, tenant: str, key: RunKey, progress: LogProgress) -> tuple[Found, LogProgress]:
    """Read what comes next in a log, and how far that is; nothing more comes of one that was deleted."""
    source = Source(key, progress.created_ns)
    try:
        chunks = await engine.read(key, progress.sequence, _READ_BYTES, progress.created_ns)
    except LavantError as error:
        if error.reason != ErrorReason.ERROR_REASON_RUN_NOT_FOUND:
            raise
        return Found(tenant, source, b""), progress._replace(sealed=True)
    if not chunks:
        return Found(tenant, source, b""), progress
    after = progress.sequence
    spans = [Span(chunk, max(0, after + 1 - chunk.first_sequence), len(chunk.types)) for chunk in chunks]
    scores = b"".join(Selection(_SCORES, DeltaMode.DELTA_MODE_ALL).cut(spans))
    last = chunks[-1]
    reached = progress._replace(sequence=last.last_sequence, sealed=last.types[-1] == _SEALING)
    return Found(tenant, source, scores), reached
