"""AccessService: API keys, and the principal of a call."""

from lavant.contract.values import seconds_of
from lavant.server.auth.access_tokens import DEFAULT_TOKEN_AGE, TOKEN_SCOPES, AccessTokens
from lavant.server.auth.keys import Keys, limits_message, restriction_of
from lavant.server.auth.principal import Scope, is_tenant
from lavant.server.clock import Clock
from lavant.server.errors import invalid_field
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Service, unary
from lavant.server.rpc.validation import DEFAULT_PAGE_SIZE
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.tokens import Listing, PageTokens
from lavant.v1 import access_service_pb2 as pb

_ALL_TENANTS = "*"


class AccessService:
    """The RPCs of AccessService; the contract describes each."""

    def __init__(self, keys: Keys, tokens: AccessTokens, page_tokens: PageTokens, clock: Clock) -> None:
        self._keys = keys
        self._tokens = tokens
        self._page_tokens = page_tokens
        self._clock = clock

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["AccessService"].full_name,
            {
                "CreateKey": unary(pb.CreateKeyRequest, self.create_key, Scope.KEYS_ADMIN, audited=True),
                "ListKeys": unary(pb.ListKeysRequest, self.list_keys, Scope.KEYS_ADMIN),
                "RevokeKey": unary(pb.RevokeKeyRequest, self.revoke_key, Scope.KEYS_ADMIN, audited=True),
                "CreateAccessToken": unary(
                    pb.CreateAccessTokenRequest, self.create_access_token, *sorted(TOKEN_SCOPES), audited=True
                ),
                "GetPrincipal": unary(pb.GetPrincipalRequest, self.get_principal),
            },
        )

    @checked(pb.CreateKeyRequest)
    async def create_key(self, request: pb.CreateKeyRequest, call: Caller) -> pb.CreateKeyResponse:
        """Create an API key, and return the only copy of its secret."""
        key, principal = request.key, call.principal
        principal.require_all_runs()
        principal.require_no_limits()
        key.tenant = _tenant(key.tenant, call, "key.tenant")
        for index, scope in enumerate(key.scopes):
            if scope not in set(Scope):
                raise invalid_field(f"key.scopes[{index}]", f"{scope!r} is no scope; use {', '.join(Scope)}")
            principal.require(Scope(scope))  # nobody grants more than they have
        if key.HasField("expire_time") and key.expire_time.ToNanoseconds() <= self._clock.time_ns():
            raise invalid_field("key.expire_time", "must lie in the future")
        made, secret = await self._keys.create(key, principal.id)
        return pb.CreateKeyResponse(key=made, secret=secret)

    @checked(pb.ListKeysRequest)
    async def list_keys(self, request: pb.ListKeysRequest, call: Caller) -> pb.ListKeysResponse:
        """Return a page of API keys, without their secrets."""
        call.principal.require_all_runs()
        if request.tenant == _ALL_TENANTS:
            call.principal.require(Scope.TENANTS_ADMIN)
            found = list(self._keys.all())
        else:
            tenant = _tenant(request.tenant, call, "tenant")
            found = [key for key in self._keys.all() if key.tenant == tenant]
        listed = request.tenant or call.tenant
        start = self._page_tokens.read(Listing.KEYS, listed, request.page_token, "page_token") or 0
        end = start + (request.page_size or DEFAULT_PAGE_SIZE)
        token = self._page_tokens.issue(Listing.KEYS, listed, end if end < len(found) else None)
        return pb.ListKeysResponse(keys=found[start:end], next_page_token=token)

    @checked(pb.RevokeKeyRequest)
    async def revoke_key(self, request: pb.RevokeKeyRequest, call: Caller) -> pb.RevokeKeyResponse:
        """Revoke an API key; its open streams end."""
        call.principal.require_all_runs()
        tenant = _tenant(request.tenant, call, "tenant")
        return pb.RevokeKeyResponse(key=await self._keys.revoke(request.key_id, tenant, call.principal.id))

    @checked(pb.CreateAccessTokenRequest)
    async def create_access_token(
        self, request: pb.CreateAccessTokenRequest, call: Caller
    ) -> pb.CreateAccessTokenResponse:
        """Create an access token for some runs of the caller's."""
        if not request.restriction.ByteSize():
            raise invalid_field("restriction", "must have at least one field: an access token is for some runs")
        for index, scope in enumerate(request.scopes):
            if scope not in TOKEN_SCOPES:
                raise invalid_field(f"scopes[{index}]", f"must be one of {', '.join(sorted(TOKEN_SCOPES))}")
        scopes = frozenset(Scope(scope) for scope in request.scopes) or frozenset({Scope.RUNS_READ})
        token, expires_ns = self._tokens.issue(
            call.principal,
            name=request.name,
            scopes=scopes,
            wanted=restriction_of(request.restriction),
            seconds=seconds_of(request.lifetime) or DEFAULT_TOKEN_AGE,
        )
        response = pb.CreateAccessTokenResponse(token=token)
        response.expire_time.FromNanoseconds(expires_ns)
        return response

    async def get_principal(self, _: pb.GetPrincipalRequest, call: Caller) -> pb.GetPrincipalResponse:
        """Return the principal of the call."""
        principal = call.principal
        response = pb.GetPrincipalResponse(
            tenant=principal.tenant,
            principal=principal.id,
            scopes=sorted(principal.scopes),
            limits=limits_message(principal.limits),
        )
        if (restriction := principal.restriction) is not None:
            response.restriction.run_ids.extend(restriction.run_ids)
            response.restriction.names.extend(restriction.names)
            response.restriction.labels.update(restriction.labels)
            response.restriction.conversation_id = restriction.conversation_id
        if principal.expires_ns is not None:
            response.expire_time.FromNanoseconds(principal.expires_ns)
        return response


def _tenant(given: str, call: Caller, path: str) -> str:
    """Return the tenant that a request is about: the caller's, or another one for an administrator of all."""
    if given in ("", call.tenant):
        return call.tenant
    call.principal.require(Scope.TENANTS_ADMIN)
    if not is_tenant(given):
        raise invalid_field(path, "must be 1 to 64 characters of a-z 0-9 -, and not lavant")
    return given
