"""A server with two tenants, and every kind of credential that it refuses, or that allows less than is asked."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import jwt
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from lavant.server.app import listeners, services
from lavant.server.auth.principal import ALL_SCOPES, Scope
from lavant.server.http import admin, site
from lavant.server.http.openapi import Endpoint
from lavant.server.rpc.admission import CallAdmission
from lavant.v1.access_service_pb2 import CreateAccessTokenRequest, CreateKeyRequest, Key, Restriction, RevokeKeyRequest
from support.clock import ManualClock
from support.issuer import AUDIENCE, ISSUER, Issuer
from support.server import Server, Stubs, connected, serving

OWNER, OTHER = "acme", "beta"
ELSEWHERE = Restriction(run_ids=["elsewhere"])
OF_TENANT = ALL_SCOPES - {Scope.TENANTS_ADMIN}
Values: TypeAlias = tuple[str, ...]  # of `authorization`, each sent as one header


def bearer(text: str) -> Values:
    """Return a credential as calls have it."""
    return (f"Bearer {text}",)


@dataclass(slots=True)
class Tables:
    """What a server was composed of: the scopes of its RPCs, and the routes of its listeners."""

    scopes: Mapping[str, tuple[Scope, ...]] = field(default_factory=dict)
    endpoints: Sequence[Endpoint] = ()
    public: Sequence[BaseRoute] = ()
    admin: Sequence[BaseRoute] = ()


@dataclass(slots=True)
class Everyone:
    """A server, what it was composed of, and who calls it: `refused` are credentials by what is wrong with them."""

    server: Server
    tables: Tables
    refused: dict[str, Values]
    token: str  # an access token of the owner's, for other runs than those of any test
    _stack: AsyncExitStack
    _callers: dict[tuple[str, frozenset[str], bool], tuple[Stubs, str]] = field(default_factory=dict)

    async def caller(
        self, scopes: Iterable[str] = OF_TENANT, tenant: str = OWNER, *, restricted: bool = False
    ) -> tuple[Stubs, str]:
        """Return a connection that calls with a key of these scopes, and the key."""
        asked = (tenant, frozenset(scopes), restricted)
        if asked not in self._callers:
            _, secret = await _new_key(self.server.stubs, asked[1], tenant, ELSEWHERE if restricted else None)
            stubs = await self._stack.enter_async_context(connected(self.server.target, bearer=secret))
            self._callers[asked] = (stubs, secret)
        return self._callers[asked]


@asynccontextmanager
async def called_by_everyone(folder: Path) -> AsyncIterator[Everyone]:
    """Serve with API keys, JWTs and access tokens, HTTP, and metrics that need a credential."""
    clock, tables = ManualClock(), Tables()
    issuer, forger = (Issuer(now=clock.time_ns() // 10**9) for _ in range(2))
    (folder / "keys.json").write_bytes(issuer.key_set)
    settings: dict[str, Any] = {
        "auth": ["keys", "jwt"],
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_algorithm": "ES256",
        "jwt_keys": str(folder / "keys.json"),
        "init_key": True,
        "http": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
    }
    try:
        async with AsyncExitStack() as stack:
            with _recording(tables):
                server = await stack.enter_async_context(serving(folder, clock=clock, **settings))
            refused, token = await _credentials(server, clock)
            refused |= {name: bearer(text) for name, text in _jwts(issuer, forger).items()}
            yield Everyone(server, tables, refused, token, stack)
    finally:
        issuer.close()
        forger.close()


@contextmanager
def _recording(tables: Tables) -> Iterator[None]:
    """Note what servers are composed of that start within the block; their metrics need a credential on loopback."""

    class Admission(CallAdmission):
        def __init__(self, authenticate: Any, scopes: Mapping[str, tuple[Scope, ...]], *more: Any) -> None:
            tables.scopes = scopes
            super().__init__(authenticate, scopes, *more)

    original_site, original_application = site.site, site.application

    def recorded_site(endpoints: Sequence[Endpoint], *more: Any) -> ASGIApp:
        tables.endpoints = endpoints
        return original_site(endpoints, *more)

    def public(routes: Sequence[BaseRoute]) -> ASGIApp:
        tables.public = routes
        return original_application(routes)

    def of_admin(routes: Sequence[BaseRoute]) -> ASGIApp:
        tables.admin = routes
        return original_application(routes)

    with ExitStack() as stack:
        for module, name, replacement in (
            (services, "CallAdmission", Admission),
            (listeners, "site", recorded_site),
            (listeners, "is_loopback", lambda _: False),
            (site, "application", public),
            (admin, "application", of_admin),
        ):
            stack.enter_context(patch.object(module, name, replacement))
        yield


async def _credentials(server: Server, clock: ManualClock) -> tuple[dict[str, Values], str]:
    """Return keys and tokens that are refused, and a good token."""
    stubs = server.stubs
    _, good = await _new_key(stubs, OF_TENANT, OWNER)
    revoked_id, revoked = await _new_key(stubs, OF_TENANT, OWNER)
    _, expired = await _new_key(stubs, OF_TENANT, OWNER, expires_ns=clock.time_ns() + 60 * 10**9)
    async with connected(server.target, bearer=good) as minter, connected(server.target, bearer=revoked) as former:
        token, brief = await _new_token(minter), await _new_token(minter, seconds=60)
        of_revoked = await _new_token(former)
    await stubs.access.RevokeKey(RevokeKeyRequest(key_id=revoked_id, tenant=OWNER))
    clock.advance(60)
    wrong = good[:-1] + ("a" if good[-1] != "a" else "b")
    return {
        "no credential": (),
        "malformed: no scheme": (good,),
        "malformed: another scheme": (f"Basic {good}",),
        "malformed: no text": ("Bearer",),
        "malformed: of no kind": ("Bearer nonsense",),
        "malformed: two": (f"Bearer {good}", f"Bearer {good}"),
        "malformed: half a key": (f"Bearer {good.rpartition('_')[0]}",),
        "malformed: not a JWT": ("Bearer a.b.c",),
        "wrong key": bearer(wrong),
        "wrong key: unknown ID": (f"Bearer lvk_{'a' * 12}_{good.rpartition('_')[2]}",),
        "wrong token": (f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}",),
        "expired key": bearer(expired),
        "expired token": bearer(brief),
        "revoked key": bearer(revoked),
        "token of a revoked key": bearer(of_revoked),
    }, token


def _jwts(issuer: Issuer, forger: Issuer) -> dict[str, str]:
    allowed: dict[str, Any] = {"tenant": OWNER, "scope": " ".join(OF_TENANT)}
    return {
        "wrong JWT": forger.token(**allowed),
        "unsigned JWT": jwt.encode(issuer.claims(**allowed), "", "none"),
        "expired JWT": issuer.token(**allowed, exp=issuer.now),
        "JWT for another audience": issuer.token(**allowed, aud="other"),
    }


async def _new_key(
    stubs: Stubs, scopes: Iterable[str], tenant: str, restriction: Restriction | None = None, *, expires_ns: int = 0
) -> tuple[str, str]:
    """Create a key and return its ID and text. All have one name: their principal is the same, and so what it holds."""
    key = Key(name="agent", tenant=tenant, scopes=list(scopes), restriction=restriction)
    if expires_ns:
        key.expire_time.FromNanoseconds(expires_ns)
    created = await stubs.access.CreateKey(CreateKeyRequest(key=key))
    return created.key.key_id, created.secret


async def _new_token(stubs: Stubs, *, seconds: int = 3_600) -> str:
    request = CreateAccessTokenRequest(restriction=ELSEWHERE, scopes=[Scope.RUNS_READ, Scope.SCORES_READ])
    request.lifetime.FromSeconds(seconds)
    return (await stubs.access.CreateAccessToken(request)).token
