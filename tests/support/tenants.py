"""Callers of several tenants on one server, without credentials: the name of a tenant is its key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

from lavant.server.auth.principal import ALL_SCOPES, DEFAULT_TENANT, Principal, Scope
from support.server import Stubs


@contextmanager
def named_tenants() -> Iterator[None]:
    """Let servers that start within the block take the text of a credential for the name of its tenant."""
    with patch("lavant.server.app.access.open_to_all", _by_name):
        yield


def authorization(tenant: str) -> dict[str, str]:
    """The headers of a caller."""
    return {"authorization": f"Bearer {tenant}"}


def stubs_of(stubs: Stubs, tenant: str) -> Stubs:
    """Stubs whose calls are those of a tenant."""
    metadata = tuple(authorization(tenant).items())
    names = ("runs", "events", "rules", "evaluations", "scores", "access")
    bound: dict[str, Any] = {name: _Bound(getattr(stubs, name), metadata) for name in names}
    return replace(stubs, **bound)


class _Bound:
    """A stub whose methods send the same metadata with each call."""

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._stub, name), metadata=self._metadata)


def _by_name(given: str | None) -> Principal:
    tenant = DEFAULT_TENANT if given is None else given.removeprefix("Bearer ")
    return Principal(tenant=tenant, id=f"key:{tenant}", scopes=ALL_SCOPES - {Scope.TENANTS_ADMIN})
