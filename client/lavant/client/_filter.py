"""Which runs."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from lavant.client._arguments import run_kind, run_state, several, text_labels, timestamp
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
    """Build a filter; everything set must hold. Raises ValueError for a kind or state that does not exist,
    and for one str in place of several.
    """
    return RunFilter(
        kinds=[run_kind(kind, "kinds") for kind in several("kinds", kinds)],
        states=[run_state(state, "states") for state in several("states", states)],
        names=several("names", names),
        labels=text_labels(labels),
        conversation_id=conversation_id,
        parent_run_id=parent_run_id,
        created_after=timestamp("created_after", created_after),
        created_before=timestamp("created_before", created_before),
    )
