"""Which runs a list holds, as SQL over a table `runs` and a table `labels`, and how much of them makes a page."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.store.port import RunChange, RunQuery
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import RunFilter

INT64_MAX = 2**63 - 1
LOOKED_AT = 10_000  # runs, at most, for one page
_PAGE_BYTES = 1 << 20  # of runs in one page, unless the first is larger; gRPC's clients take 4 MiB
_NAMES = """EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE wanted.value = name OR (
    substr(wanted.value, -1) = '*'
    AND substr(name, 1, length(wanted.value) - 1) = substr(wanted.value, 1, length(wanted.value) - 1)))"""
_LABEL = """EXISTS (SELECT 1 FROM labels
    WHERE labels.tenant = ? AND labels.key = ? AND labels.value = ? AND labels.run = runs.id)"""
SILENT = """SELECT tenant, run_id FROM runs
    WHERE timeout_ns IS NOT NULL AND state < 10 AND max(seen_ns, ?) + timeout_ns < ? ORDER BY id"""


def conditions(query: RunQuery) -> tuple[str, list[Any]]:
    """The condition on a run that is wanted, and the values bound in it."""
    wanted = query.filter
    clauses, values = ["runs.tenant = ?"], [query.tenant]
    for clause, value in _scalar_conditions(wanted):
        clauses.append(clause)
        values.append(value)
    for key, value in wanted.labels.items():
        clauses.append(_LABEL)
        values += (query.tenant, key, value)
    return " AND ".join(clauses), values


def take(rows: Iterable[tuple[int, Run]], limit: int) -> tuple[list[RunChange], bool]:
    """Take as many runs as a page may hold, at least one if there is any; tells whether it left some.

    Runs at the same position are never parted.
    """
    taken: list[RunChange] = []
    size = 0
    for position, run in rows:
        size += run.ByteSize()
        full = len(taken) >= limit or size > _PAGE_BYTES
        if full and taken and taken[-1].position != position:
            return taken, True
        taken.append(RunChange(position, run))
    return taken, False


def _scalar_conditions(wanted: RunFilter) -> Iterator[tuple[str, Any]]:
    if wanted.kinds:
        yield "kind IN (SELECT value FROM json_each(?))", json.dumps(list(wanted.kinds))
    if wanted.states:
        yield "state IN (SELECT value FROM json_each(?))", json.dumps(list(wanted.states))
    if wanted.names:
        yield _NAMES, json.dumps(list(wanted.names))
    if wanted.conversation_id:
        yield "conversation_id = ?", wanted.conversation_id
    if wanted.parent_run_id:
        yield "parent_run_id = ?", wanted.parent_run_id
    if wanted.HasField("created_after"):
        yield "create_ns >= ?", _nanoseconds(wanted.created_after)
    if wanted.HasField("created_before"):
        yield "create_ns < ?", _nanoseconds(wanted.created_before)


def _nanoseconds(time: Timestamp) -> int:
    return max(-INT64_MAX, min(time.seconds * 1_000_000_000 + time.nanos, INT64_MAX))
