"""Which runs."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.client._arguments import choose, run_kind
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import RunFilter

_STATES = {name.removeprefix("RUN_STATE_").lower(): number for name, number in RunState.items() if number}


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
    """Build a filter; everything set must hold. Raises ValueError for a kind or state that does not exist,
    and for one str in place of several.
    """
    for field, words in (("kinds", kinds), ("states", states), ("names", names)):
        if isinstance(words, str):
            raise ValueError(f"{field} must be several words, as in [{words!r}], not {words!r}")  # noqa: TRY004
    return RunFilter(
        kinds=[run_kind(kind, "kinds") for kind in kinds],
        states=[choose("states", state, _STATES) for state in states],
        names=names,
        labels=labels,
        conversation_id=conversation_id,
        parent_run_id=parent_run_id,
        created_after=_timestamp(created_after),
        created_before=_timestamp(created_before),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
