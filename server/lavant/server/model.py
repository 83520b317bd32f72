"""The names by which the parts of the server speak of runs and their readers."""

from typing import NamedTuple

from lavant.v1.run_pb2 import RunState

MAX_BATCH_EVENTS = 1_000
MAX_BATCH_BYTES = 1 << 20


_SUCCEEDED = RunState.RUN_STATE_SUCCEEDED  # looking it up costs more than comparing with it


class RunKey(NamedTuple):
    """A run, within its tenant. Every key of the store begins so."""

    tenant: str
    run_id: str


class ConsumerKey(NamedTuple):
    """A reader's place: at most one stream may hold it."""

    run: RunKey
    consumer_id: str


def is_terminal(state: "RunState.ValueType") -> bool:
    """Tell whether a run in this state has ended: values from 10 on are terminal."""
    return state >= _SUCCEEDED
