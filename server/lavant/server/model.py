"""The names by which the parts of the server speak of runs and their readers."""

from typing import NamedTuple

from lavant.v1.run_pb2 import RunState

_SUCCEEDED = RunState.RUN_STATE_SUCCEEDED  # looking it up costs more than comparing with it


RESULTS_OF_RULES = {"lavant.results": "rule"}  # the labels of the runs that rules' results go to


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


def is_terminal(state: "RunState.ValueType") -> bool:
    """Tell whether a run in this state has ended: values from 10 on are terminal."""
    return state >= _SUCCEEDED
