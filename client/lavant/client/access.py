"""Credentials: API keys, what they allow, and the principal of a client."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import ClassVar, Literal

from google.protobuf.message import Message
from pydantic import Field

from lavant.client._wire.arguments import several, timestamp
from lavant.client.models import Frozen
from lavant.v1 import access_service_pb2

Scope = Literal[
    "runs:publish",
    "runs:read",
    "runs:admin",
    "runs:take-over",
    "rules:read",
    "rules:write",
    "scores:read",
    "scores:write",
    "samples:work",
    "keys:admin",
    "tenants:admin",
    "metrics",
]


class Restriction(Frozen):
    """Runs that a credential is for: those that match every field that is not empty.

    A trailing `*` of a name matches any ending. To the credential, other runs do not exist.

    Example:
        weather = Restriction(names=["weather-*"], labels={"team": "sky"})
        key = await client.access.create_key("dashboard", scopes=["runs:read"], restriction=weather)
        assert key.restriction == weather
    """

    _contract: ClassVar[type[Message]] = access_service_pb2.Restriction

    run_ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    conversation_id: str = ""

    def to_proto(self) -> access_service_pb2.Restriction:
        """Return the contract's Restriction."""
        return access_service_pb2.Restriction(
            run_ids=self.run_ids, names=self.names, labels=self.labels, conversation_id=self.conversation_id
        )


class KeyLimits(Frozen):
    """The most that calls with one key, and with the access tokens that it created, may use of one server.

    `streams` are open streams, publishing calls and waits; `calls` all others in progress. None: no limit but the
    quotas of the tenant.

    Example:
        limits = KeyLimits(calls=10, events_per_second=500)
        key = await client.access.create_key("billing-agent", scopes=["runs:publish"], limits=limits)
        assert key.limits == limits
    """

    _contract: ClassVar[type[Message]] = access_service_pb2.KeyLimits

    streams: int | None = None
    calls: int | None = None
    events_per_second: float | None = None
    bytes_per_second: float | None = None
    runs_per_second: float | None = None

    def to_proto(self) -> access_service_pb2.KeyLimits:
        """Return the contract's KeyLimits."""
        return access_service_pb2.KeyLimits(**self.model_dump())


class APIKey(Frozen):
    """An API key without its secret.

    Keys of one `name` and tenant stand for the same principal, `key:NAME`, so that a key can be replaced by another.

    Example:
        created = await client.access.create_key("billing-agent", scopes=["runs:publish"])
        keys = [key async for key in client.access.list_keys()]
        assert created.id in [key.id for key in keys]
    """

    _contract: ClassVar[type[Message] | None] = access_service_pb2.Key
    _contract_names: ClassVar[Mapping[str, str]] = {
        "id": "key_id",
        "expires": "expire_time",
        "created": "create_time",
        "revoked": "revoke_time",
    }

    id: str
    name: str
    tenant: str
    scopes: tuple[str, ...] = ()
    restriction: Restriction | None = None
    limits: KeyLimits | None = None
    created: datetime | None = None
    created_by: str = ""
    expires: datetime | None = None
    revoked: datetime | None = None


class CreatedKey(APIKey):
    """A new API key. `secret` is the credential itself: it is shown here only, and not in the key's repr.

    Example:
        created = await client.access.create_key("billing-agent", scopes=["runs:publish", "runs:read"])
        assert created.secret.startswith("lvk_")
        assert created.secret not in repr(created)
    """

    _contract: ClassVar[type[Message] | None] = None

    secret: str = Field(repr=False)


class AccessToken(Frozen):
    """A short-lived credential to read some runs, which a backend creates for a browser.

    `token` is the credential itself, which its repr leaves out. Streams over HTTP take it as `access_token` in the URL.

    Example:
        created = await client.access.create_token(run_id="run-1")
        url = f"/api/v1/runs/run-1/stream?access_token={created.token}"
        assert created.token not in repr(created)
    """

    _contract: ClassVar[type[Message]] = access_service_pb2.CreateAccessTokenResponse
    _contract_names: ClassVar[Mapping[str, str]] = {"expires": "expire_time"}

    token: str = Field(repr=False)
    expires: datetime


class Principal(Frozen):
    """Principal that a client's credential stands for, with what it allows.

    Example:
        principal = await client.access.principal()
        assert (principal.tenant, principal.id) == ("default", "anonymous")
        assert "runs:read" in principal.scopes
    """

    _contract: ClassVar[type[Message]] = access_service_pb2.GetPrincipalResponse
    _contract_names: ClassVar[Mapping[str, str]] = {"id": "principal", "expires": "expire_time"}

    tenant: str
    id: str
    scopes: tuple[str, ...] = ()
    restriction: Restriction | None = None
    limits: KeyLimits | None = None
    expires: datetime | None = None


def new_key(
    name: str,
    *,
    scopes: Iterable[str],
    restriction: Restriction | None = None,
    limits: KeyLimits | None = None,
    expires: datetime | None = None,
    tenant: str = "",
) -> access_service_pb2.Key:
    """Return the contract's message of a key to create."""
    return access_service_pb2.Key(
        name=name,
        scopes=several("scopes", scopes),
        tenant=tenant,
        expire_time=timestamp("expires", expires),
        restriction=None if restriction is None else restriction.to_proto(),
        limits=None if limits is None else limits.to_proto(),
    )
