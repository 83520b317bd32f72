"""Composition of authentication: the kinds of credentials that the settings accept."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from lavant.server.app.settings import Settings
from lavant.server.auth.access_tokens import AccessTokens
from lavant.server.auth.authentication import Authenticate, Authentication, open_to_all
from lavant.server.auth.keys import Keys
from lavant.server.auth.principal import Scope
from lavant.server.clock import Clock

if TYPE_CHECKING:
    from lavant.server.auth.jwt import JWTAuthentication


@asynccontextmanager
async def authenticating(
    settings: Settings, keys: Keys, tokens: AccessTokens, clock: Clock
) -> AsyncIterator[Authenticate]:
    """Yield how calls are authenticated. Raises StartError if the keys of JWTs cannot be read from their file."""
    if not settings.auth:
        yield open_to_all
        return
    async with AsyncExitStack() as stack:
        jwts = await _jwts(stack, settings, clock) if "jwt" in settings.auth else None
        yield Authentication(keys if "keys" in settings.auth else None, jwts, tokens)


async def _jwts(stack: AsyncExitStack, settings: Settings, clock: Clock) -> "JWTAuthentication":
    from lavant.server.auth.jwt import Claims, JWTAuthentication  # imports cryptography, which takes 50 ms
    from lavant.server.auth.key_set import KeySet

    claims = Claims(
        issuer=settings.jwt_issuer or "",
        audience=settings.jwt_audience or "",
        tenant_claim=settings.jwt_tenant_claim,
        scopes_claim=settings.jwt_scopes_claim,
        tenants=settings.jwt_tenants,
        scopes={value: [Scope(scope) for scope in granted] for value, granted in settings.jwt_scopes.items()},
    )
    key_set = await stack.enter_async_context(KeySet(settings.jwt_keys or "", settings.jwt_algorithm, clock))
    return JWTAuthentication(key_set, settings.jwt_algorithm, claims, clock)
