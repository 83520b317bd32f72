"""Principals of client certificates, by the names in them: SPIFFE IDs and other URIs, and DNS names."""

import asyncio
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lavant.server.auth.credential_limits import CredentialLimits
from lavant.server.auth.principal import Principal, Restriction, Scope, is_tenant, unauthenticated
from lavant.server.clock import Clock, Periodic
from lavant.server.errors import StartError

_INTERVAL = 2.0  # seconds between two reads of the table
_PREFIX = "tls:"  # of the IDs of principals and credentials
_SHOWN = 3  # names in an error
_log = structlog.get_logger(__name__)
_Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]


def _check_tenant(name: str) -> str:
    if not is_tenant(name):
        raise ValueError("must be 1 to 64 characters of a-z 0-9 -, other than lavant")
    return name


class _Restriction(BaseModel):
    model_config = ConfigDict(extra="forbid")

    run_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    conversation_id: str = ""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: Annotated[str, AfterValidator(_check_tenant)]
    scopes: frozenset[Scope]
    restriction: _Restriction | None = None
    limits: CredentialLimits | None = None


_TABLE = TypeAdapter(dict[_Name, _Entry])


class CertificatePrincipals(Periodic):
    """Principals of client certificates: that of the first name in a certificate which the table has.

    Within an `async with` block, the file of the table is read again when it changes. `on_reduced` is then called with
    the ID of each credential that is gone or allows less, and `on_allowed` with that of each one in the table. A file
    that cannot be used leaves the last good table in place, which is logged once. Raises StartError if it cannot be
    used at first.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        on_reduced: Callable[[str], None] = lambda _: None,
        on_allowed: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(clock, _INTERVAL)
        self._path = path
        self._on_reduced = on_reduced
        self._on_allowed = on_allowed
        self._complaint = ""
        content = _read(path)
        self._principals = _parse(path, content)
        self._content: bytes | None = content  # as last read; None: it could not be

    async def run_once(self) -> None:
        """Read the file again, and use it if it has changed."""
        try:
            known, self._content = self._content, None
            self._content = content = await asyncio.to_thread(_read, self._path)
            if content == known:  # a complaint about it stands
                return
            found = await asyncio.to_thread(_parse, self._path, content)
        except StartError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("mtls_principals_not_reloaded", error=self._complaint)
            return
        self._complaint = ""
        if found == self._principals:
            return
        before, self._principals = self._principals, found
        for name, principal in before.items():
            if not _allows_as_much(found.get(name), principal):
                self._on_reduced(principal.credential_id)
        for principal in found.values():  # after that: whoever allows less may still call
            self._on_allowed(principal.credential_id)
        _log.info("mtls_principals_reloaded", names=len(found))

    def __call__(self, names: Sequence[str]) -> Principal:
        """Return the principal of a certificate with these names. Raises UNAUTHENTICATED."""
        for name in names:
            if (found := self._principals.get(name)) is not None:
                return found
        shown = ", ".join(names[:_SHOWN]) or "no name"
        raise unauthenticated(f"the client certificate, with {shown}, is of no principal; add it to --mtls-principals")

    def is_gone(self, credential_id: str) -> bool:
        """Return whether a credential was a name of a certificate, and the table does not have it any more."""
        name = credential_id.removeprefix(_PREFIX)
        return name != credential_id and name not in self._principals


def _read(path: Path) -> bytes:
    """Read the file of the table. Raises StartError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"mtls_principals: {path} cannot be read: {error.strerror}") from None


def _parse(path: Path, content: bytes) -> Mapping[str, Principal]:
    """Parse the table from TOML: by name, `tenant`, `scopes`, `restriction` and `limits`. Raises StartError."""
    try:
        table = _TABLE.validate_python(tomllib.loads(content.decode()))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise StartError(f"mtls_principals: {path}: {place}: {problem['msg']}") from None
    except ValueError as error:
        raise StartError(f"mtls_principals: {path} cannot be read as TOML: {error}") from None
    return {name: _principal(name, entry) for name, entry in table.items()}


def _allows_as_much(new: Principal | None, old: Principal) -> bool:
    return new is not None and new.scopes >= old.scopes and replace(new, scopes=old.scopes) == old


def _principal(name: str, entry: _Entry) -> Principal:
    found = entry.restriction
    restriction = None if found is None else Restriction(**found.model_dump())
    identity = f"{_PREFIX}{name}"
    return Principal(
        tenant=entry.tenant,
        id=identity,
        scopes=entry.scopes,
        restriction=restriction,
        credential_id=identity,
        limits=None if entry.limits is None else entry.limits.limits(),
    )


def names_of_grpc_peer(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names in the certificate of a gRPC peer, URIs first."""
    return [name.decode("utf-8", "replace") for key in ("peer_uri", "peer_dns") for name in auth_context.get(key, ())]


def names_of_http_peer(certificate: Mapping[str, Any]) -> list[str]:
    """Return the names in the certificate of an HTTP peer, as `ssl` describes it, URIs first."""
    found: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    return [name for wanted in ("URI", "DNS") for kind, name in found if kind == wanted]
