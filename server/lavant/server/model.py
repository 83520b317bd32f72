"""The names by which the parts of the server speak of runs and their readers."""

from typing import NamedTuple

from lavant.contract.limits import OWN_RUNS
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


def is_system_run(key: RunKey) -> bool:
    """Return whether only the server writes a run."""
    return key.run_id.startswith(OWN_RUNS) or "/" in key.tenant


SERVER_TENANT = "lavant"  # beside it are logs of the server's own that belong to no caller's tenant


def callers_tenant(tenant: str) -> str:
    """Return the caller's tenant that a tenant of the server's own is beside, or the tenant itself."""
    return tenant.partition("/")[0]


class ConsumerKey(NamedTuple):
    """A reader's place: at most one stream may hold it."""

    run: RunKey
    consumer_id: str


SYSTEM_RECORD = 100  # the type of an event that is a record of the server itself; EventType has no such value


def is_terminal(state: "RunState.ValueType") -> bool:
    """Return whether a run in this state has ended: values from 10 on are terminal."""
    return state >= _SUCCEEDED
