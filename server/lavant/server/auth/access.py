"""Access to runs: what a principal may use, as far as its credential is restricted to some runs of the tenant.

To such a credential other runs do not exist. Each decision is made on the run that is at hand where it is needed,
so that it is never one about an earlier run of the same ID.
"""

from lavant.contract.limits import OWN_RUNS
from lavant.server.auth.principal import Principal
from lavant.server.errors import ServiceError
from lavant.server.store.restrictions import check_within
from lavant.v1.error_pb2 import ErrorReason
from lavant.v1.run_pb2 import Run, RunSettings


def check_visible(principal: Principal, run: Run) -> Run:
    """Return a run that a principal may use, or raise RUN_NOT_FOUND."""
    return check_within(principal.restriction, run)


def check_new_run(principal: Principal, run_id: str, settings: RunSettings) -> None:
    """Raise PERMISSION_DENIED unless a principal may create a run with this ID and these settings."""
    if principal.restriction is not None and not principal.restriction.allows_new(run_id, settings):
        raise ServiceError(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            "the credential is restricted to some runs, and a run with this run_id and these settings is none of them; "
            "use the run_id, name, labels and conversation_id of its restriction, or another credential",
        )


def check_readable(principal: Principal, run_id: str) -> None:
    """Raise PERMISSION_DENIED for a system run if the credential is restricted: such runs are about many runs."""
    if run_id.startswith(OWN_RUNS):
        principal.require_all_runs()
