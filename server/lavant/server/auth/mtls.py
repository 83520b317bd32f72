"""Principals of client certificates, by the names in them: SPIFFE IDs and other URIs, and DNS names."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lavant.server.auth.principal import Principal, Restriction, Scope, is_tenant, unauthenticated
from lavant.server.errors import StartError

_SHOWN = 3  # names in an error
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


_TABLE = TypeAdapter(dict[_Name, _Entry])


class CertificatePrincipals:
    """Principals of client certificates: that of the first name in a certificate which the table has."""

    def __init__(self, principals: Mapping[str, Principal]) -> None:
        self._principals = principals

    @classmethod
    def read(cls, path: Path) -> "CertificatePrincipals":
        """Read the table from a TOML file: by name, `tenant`, `scopes` and `restriction`. Raises StartError."""
        try:
            table = _TABLE.validate_python(tomllib.loads(path.read_text("utf-8")))
        except OSError as error:
            raise StartError(f"mtls_principals: {path} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise StartError(f"mtls_principals: {path}: {place}: {problem['msg']}") from None
        except ValueError as error:
            raise StartError(f"mtls_principals: {path} cannot be read as TOML: {error}") from None
        return cls({name: _principal(name, entry) for name, entry in table.items()})

    def __call__(self, names: Sequence[str]) -> Principal:
        """Return the principal of a certificate with these names. Raises UNAUTHENTICATED."""
        for name in names:
            if (found := self._principals.get(name)) is not None:
                return found
        shown = ", ".join(names[:_SHOWN]) or "no name"
        raise unauthenticated(f"the client certificate, with {shown}, is of no principal; add it to --mtls-principals")


def _principal(name: str, entry: _Entry) -> Principal:
    found = entry.restriction
    restriction = None if found is None else Restriction(**found.model_dump())
    identity = f"tls:{name}"
    return Principal(
        tenant=entry.tenant, id=identity, scopes=entry.scopes, restriction=restriction, credential_id=identity
    )


def names_of_grpc_peer(auth_context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names in the certificate of a gRPC peer, URIs first."""
    return [name.decode("utf-8", "replace") for key in ("peer_uri", "peer_dns") for name in auth_context.get(key, ())]


def names_of_http_peer(certificate: Mapping[str, Any]) -> list[str]:
    """Return the names in the certificate of an HTTP peer, as `ssl` describes it, URIs first."""
    found: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    return [name for wanted in ("URI", "DNS") for kind, name in found if kind == wanted]
