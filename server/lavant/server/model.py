"""The names by which the parts of the server speak of runs and their readers."""

from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1.run_pb2 import RunState

MAX_BATCH_EVENTS = 1_000
MAX_BATCH_BYTES = 1 << 20


_SUCCEEDED = RunState.RUN_STATE_SUCCEEDED  # looking it up costs more than comparing with it


OWN_RUNS = "lavant."  # run ids that begin so are the server's own: callers may read them, and no more
RESULTS_OF_RULES = {"lavant.results": "rule"}  # the labels of the runs that rules' results go to

YEAR_1, YEAR_9999 = -62_135_596_800, 253_402_300_799  # first and last second that a Timestamp may name


class RunKey(NamedTuple):
    """A run, within its tenant. Every key of the store begins so."""

    tenant: str
    run_id: str


def beside(tenant: str, part: str) -> str:
    """Name a tenant of the server's own: what it keeps there for a caller's is in nobody's lists of runs.

    No credentials are ever for a tenant with a slash in its name.
    """
    return f"{tenant}/{part}"


class ConsumerKey(NamedTuple):
    """A reader's place: at most one stream may hold it."""

    run: RunKey
    consumer_id: str


def is_valid(time: Timestamp) -> bool:
    """Tell whether a point in time lies within google.protobuf.Timestamp's bounds."""
    return YEAR_1 <= time.seconds <= YEAR_9999 and 0 <= time.nanos < 1_000_000_000


def is_terminal(state: "RunState.ValueType") -> bool:
    """Tell whether a run in this state has ended: values from 10 on are terminal."""
    return state >= _SUCCEEDED
