# Generated from _async/api/access.py by client/unasync.py: change that file instead.
"""Calls about credentials: API keys, access tokens, and the principal of this client."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from lavant.client._sync.transport import Connection
from lavant.client._wire.arguments import check_seconds, duration, several, text_labels
from lavant.client.access import AccessToken, APIKey, CreatedKey, KeyLimits, Principal, Restriction, new_key
from lavant.v1.access_service_pb2 import (
    CreateAccessTokenRequest,
    CreateKeyRequest,
    GetPrincipalRequest,
    ListKeysRequest,
    RevokeKeyRequest,
)


class Access:
    """Calls about credentials, at `client.access`.

    Those about keys need the scope `keys:admin`, and `tenants:admin` for another tenant than the client's own; default:
    its own.

    Example:
        key = client.access.create_key("billing-agent", scopes=["runs:publish", "runs:read"])
        client.access.revoke_key(key.id)
        assert [each.id for each in client.access.list_keys() if each.revoked] == [key.id]
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create_key(
        self,
        name: str,
        *,
        scopes: Iterable[str],
        restriction: Restriction | None = None,
        limits: KeyLimits | None = None,
        expires: datetime | None = None,
        tenant: str = "",
    ) -> CreatedKey:
        """Create an API key, and return it with its secret, which nobody can read again.

        `name` is that of the principal: keys of one name can replace each other. Nobody can grant a scope that they
        lack, and a key with limits cannot create others: PermissionDenied.

        Example:
            key = client.access.create_key("ci", scopes=["runs:publish"], tenant="acme")
            assert key.tenant == "acme"
        """
        key = new_key(name, scopes=scopes, restriction=restriction, limits=limits, expires=expires, tenant=tenant)
        response = self._connection.call(lambda stubs: stubs.access.CreateKey, CreateKeyRequest(key=key))
        return CreatedKey.from_proto(response.key, secret=response.secret)

    def list_keys(self, *, tenant: str = "", page_size: int | None = None) -> Iterator[APIKey]:
        """Yield API keys by the time of their creation, revoked ones included; `*` lists those of all tenants.

        Example:
            for key in client.access.list_keys(tenant="*"):
                print(key.tenant, key.name, key.revoked)
        """
        request = ListKeysRequest(tenant=tenant, page_size=page_size)
        for page in self._connection.pages(lambda stubs: stubs.access.ListKeys, request):
            for key in page.keys:
                yield APIKey.from_proto(key)

    def revoke_key(self, key_id: str, *, tenant: str = "") -> APIKey:
        """Revoke an API key: all servers refuse it within 5 seconds, and end its streams. Raises KeyNotFound.

        Example:
            key = client.access.create_key("billing-agent", scopes=["runs:publish"])
            revoked = client.access.revoke_key(key.id)
            assert revoked.revoked is not None
        """
        request = RevokeKeyRequest(key_id=key_id, tenant=tenant)
        response = self._connection.call(lambda stubs: stubs.access.RevokeKey, request)
        return APIKey.from_proto(response.key)

    def create_token(
        self,
        *,
        run_id: str = "",
        run_ids: Iterable[str] = (),
        names: Iterable[str] = (),
        labels: Mapping[str, str] | None = None,
        conversation_id: str = "",
        scopes: Iterable[str] = ("runs:read",),
        lifetime: float = 900,
        name: str = "",
    ) -> AccessToken:
        """Create an access token to read some runs, such as those that a page in a browser shows.

        It is for the runs that match all arguments given, up to `conversation_id`; one is required. A trailing `*` in
        `names` matches any ending. `scopes` may be `runs:read` and `scores:read`. `lifetime` is in seconds, up to an
        hour; a token never outlives the credential that creates it. `name` says whom the token is for: tokens of one
        name and creator share consumers. Raises PermissionDenied for runs and scopes that the client's own credential
        lacks.

        Example:
            created = client.access.create_token(conversation_id="chat-7", name="user-17", lifetime=300)
            assert created.token.startswith("lva_")
        """
        restriction = Restriction(
            run_ids=(*([run_id] if run_id else []), *several("run_ids", run_ids)),
            names=tuple(several("names", names)),
            labels=dict(text_labels(labels) or {}),
            conversation_id=conversation_id,
        )
        request = CreateAccessTokenRequest(
            restriction=restriction.to_proto(),
            scopes=several("scopes", scopes),
            lifetime=duration(check_seconds("lifetime", lifetime)),
            name=name,
        )
        response = self._connection.call(lambda stubs: stubs.access.CreateAccessToken, request)
        return AccessToken.from_proto(response)

    def principal(self) -> Principal:
        """Return the principal of this client's credential.

        Example:
            assert (client.access.principal()).tenant == "default"
        """
        response = self._connection.call(lambda stubs: stubs.access.GetPrincipal, GetPrincipalRequest())
        return Principal.from_proto(response)
