"""Composition of access: credentials, quotas and the audit, as the settings have them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavant.server.app.certificates import Certificates
from lavant.server.app.settings import Settings
from lavant.server.auth.access_tokens import AccessTokens
from lavant.server.auth.audit import Audit
from lavant.server.auth.authentication import Authenticate, Authentication, open_to_all
from lavant.server.auth.client_authorities import ClientAuthorities
from lavant.server.auth.keys import Keys
from lavant.server.auth.label_keys import LabelKeys
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.auth.principal import Scope
from lavant.server.auth.quotas import Quotas
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.auth.signing import Signer
from lavant.server.clock import Clock
from lavant.server.metrics import ServerMetrics
from lavant.server.store.port import Engine
from lavant.server.streaming.calls import Calls

if TYPE_CHECKING:
    from lavant.server.auth.jwt import JWTAuthentication


@dataclass(frozen=True, slots=True)
class Access:
    """Authentication of callers, their quotas, and the record of what was refused and administered."""

    authenticate: Authenticate
    by_certificate: CertificatePrincipals | None
    authorities: ClientAuthorities | None
    keys: Keys
    tokens: AccessTokens
    quotas: Quotas
    run_quotas: RunQuotas
    calls: Calls
    audit: Audit


@asynccontextmanager
async def access(
    settings: Settings,
    engine: Engine,
    signer: Signer,
    clock: Clock,
    metrics: ServerMetrics,
    certificates: Certificates | None,
) -> AsyncIterator[Access]:
    """Yield what decides about calls. Raises StartError if a file of credentials cannot be read."""
    async with AsyncExitStack() as stack:
        audit = await stack.enter_async_context(Audit(engine, clock, metrics.audit))
        quotas = Quotas(clock, settings.limits_of, metrics.quotas)
        label_keys = await stack.enter_async_context(LabelKeys(engine, clock, settings.max_label_keys))
        run_quotas = await stack.enter_async_context(RunQuotas(engine, clock, quotas, label_keys))
        calls = Calls(settings.max_streams, clock, settings.peer_share, quotas)
        keys = await stack.enter_async_context(Keys(engine, clock, calls.revoke))
        by_certificate = None
        if settings.mtls_principals is not None:
            table = CertificatePrincipals(settings.mtls_principals, clock, calls.revoke, calls.allow)
            by_certificate = await stack.enter_async_context(table)

        authorities = None
        if certificates is not None and certificates.client_ca is not None:
            authorities = ClientAuthorities(certificates.client_ca, calls.end_refused)
            certificates.on_client_ca(authorities.replace)

        def is_revoked(credential_id: str) -> bool:
            is_gone = by_certificate is not None and by_certificate.is_gone(credential_id)
            return is_gone or keys.is_revoked(credential_id)

        tokens = AccessTokens(signer, engine.identity.epoch, clock, is_revoked)
        authenticate: Authenticate = open_to_all
        if settings.auth:
            jwts = await _jwts(stack, settings, clock) if "jwt" in settings.auth else None
            authenticate = Authentication(keys if "keys" in settings.auth else None, jwts, tokens)
        yield Access(authenticate, by_certificate, authorities, keys, tokens, quotas, run_quotas, calls, audit)


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
        limits_claim=settings.jwt_limits_claim,
        limits={value: limits.limits() for value, limits in settings.jwt_limits.items()},
    )
    key_set = await stack.enter_async_context(KeySet(settings.jwt_keys or "", settings.jwt_algorithm, clock))
    return JWTAuthentication(key_set, settings.jwt_algorithm, claims, clock)
