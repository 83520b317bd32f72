"""Principals: who calls, for which tenant, and what their credentials allow."""

import re
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from lavant.server.errors import ServiceError
from lavant.server.model import SERVER_TENANT
from lavant.server.store.ownership import TAKE_OVER_SCOPE
from lavant.server.store.restrictions import Restriction as Restriction
from lavant.v1.error_pb2 import ErrorReason

DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[a-z0-9-]{1,64}")


class Scope(StrEnum):
    """A kind of calls that a credential allows."""

    RUNS_PUBLISH = "runs:publish"
    RUNS_READ = "runs:read"
    RUNS_ADMIN = "runs:admin"
    RUNS_TAKE_OVER = TAKE_OVER_SCOPE
    RULES_READ = "rules:read"
    RULES_WRITE = "rules:write"
    SCORES_READ = "scores:read"
    SCORES_WRITE = "scores:write"
    SAMPLES_WORK = "samples:work"
    KEYS_ADMIN = "keys:admin"
    TENANTS_ADMIN = "tenants:admin"
    METRICS = "metrics"


ALL_SCOPES = frozenset(Scope)
# Scopes of calls that are about single runs. What all others allow spans the runs of the tenant, or more.
_OF_RUNS = frozenset(
    {
        Scope.RUNS_PUBLISH,
        Scope.RUNS_READ,
        Scope.RUNS_ADMIN,
        Scope.RUNS_TAKE_OVER,
        Scope.SCORES_READ,
        Scope.SCORES_WRITE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a tenant or a principal may use of each kind; None: any number. The quotas module has the kinds."""

    streams: int | None = None
    calls: int | None = None
    events_per_second: float | None = None
    bytes_per_second: float | None = None
    runs_per_second: float | None = None
    open_runs: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller of an RPC, as its credentials say.

    `id` stays the same when a key is replaced by another one of the same name: consumers, producers and sessions of
    workers belong to it. `credential_id` names the credential itself, without its secret. `limits` are quotas of the
    credential alone and of the access tokens that it created, beside those of its tenant; of all that share
    `limited_as`, unless it is empty. `expires_ns` is when it expires, in wall time; None: never.
    """

    tenant: str
    id: str
    scopes: frozenset[Scope] = ALL_SCOPES
    restriction: Restriction | None = None
    credential_id: str = ""
    limits: Limits | None = None
    limited_as: str = ""
    expires_ns: int | None = None

    def require(self, *scopes: Scope) -> None:
        """Raise PERMISSION_DENIED unless the credential has one of some scopes.

        One that is restricted to some runs can use only scopes of calls about single runs.
        """
        if self.scopes.isdisjoint(scopes):
            raise scope_missing(scopes[0])
        if self.restriction is not None and self.scopes.isdisjoint(_OF_RUNS.intersection(scopes)):
            self.require_all_runs()

    def require_all_runs(self) -> None:
        """Raise PERMISSION_DENIED if the credential is restricted to some runs."""
        if self.restriction is not None:
            raise ServiceError(
                ErrorReason.ERROR_REASON_PERMISSION_DENIED,
                "the credential is restricted to some runs, and the call is about more; use one without a restriction",
            )

    def require_no_limits(self) -> None:
        """Raise PERMISSION_DENIED if the credential has limits of its own."""
        if self.limits is not None:
            raise ServiceError(
                ErrorReason.ERROR_REASON_PERMISSION_DENIED,
                "the credential has limits, and calls with a key that it creates would not count for them; "
                "use one without limits",
            )


ANONYMOUS = Principal(tenant=DEFAULT_TENANT, id="anonymous")
# Who makes the call that the current task serves. Without a default: code that no credentials were checked for fails.
CALLER: ContextVar[Principal] = ContextVar("CALLER")


def is_tenant(name: str) -> bool:
    """Return whether a name may be that of a tenant: 1 to 64 characters of a-z 0-9 -, and not the server's own."""
    return _TENANT.fullmatch(name) is not None and name != SERVER_TENANT


def unauthenticated(message: str) -> ServiceError:
    """Return the error for credentials that are missing or not valid."""
    return ServiceError(ErrorReason.ERROR_REASON_UNAUTHENTICATED, message)


def scope_missing(scope: Scope) -> ServiceError:
    """Return the error for a credential without a scope."""
    return ServiceError(
        ErrorReason.ERROR_REASON_PERMISSION_DENIED,
        f"the credential lacks the scope {scope}; use one that has it",
        metadata={"scope": scope},
    )
