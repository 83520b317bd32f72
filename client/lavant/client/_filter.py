"""Which runs."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1.run_pb2 import RunKind, RunState
from lavant.v1.run_service_pb2 import RunFilter


def run_filter(
    *,
    kinds: Iterable[str] = (),
    states: Iterable[str] = (),
    names: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    conversation_id: str = "",
    parent_run_id: str = "",
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> RunFilter:
    """Build a filter; everything set must hold. Raises ValueError for a kind or state that does not exist."""
    return RunFilter(
        kinds=[run_kind(kind) for kind in kinds],
        states=[RunState.Value(f"RUN_STATE_{state.upper()}") for state in states],
        names=names,
        labels=labels,
        conversation_id=conversation_id,
        parent_run_id=parent_run_id,
        created_after=_timestamp(created_after),
        created_before=_timestamp(created_before),
    )


def run_kind(name: str) -> "RunKind.ValueType":
    """Number a kind of run: `agent` is RUN_KIND_AGENT."""
    return RunKind.Value(f"RUN_KIND_{name.upper()}")


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
