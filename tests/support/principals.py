"""Servers that know some principals by name, and connections that call as one of them."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from lavant.server.auth.principal import ALL_SCOPES, ANONYMOUS, Principal, Restriction, Scope, unauthenticated
from support.server import CHANNEL_OPTIONS, Stubs, connected

PLAIN = ALL_SCOPES - {Scope.RUNS_TAKE_OVER}


def a_principal(name: str, scopes: Iterable[Scope] = PLAIN, restriction: Restriction | None = None) -> Principal:
    """A principal of the tenant `default`; what follows a dash in its name distinguishes its credentials."""
    owner, _, _ = name.partition("-")
    return Principal(
        tenant=ANONYMOUS.tenant,
        id=f"key:{owner}",
        scopes=frozenset(scopes),
        restriction=restriction,
        credential_id=name,
    )


def knowing(*principals: Principal) -> Callable[[str | None], Principal]:
    """Authentication by the names of credentials; calls without one are anonymous."""
    known = {f"Bearer {principal.credential_id}": principal for principal in principals}

    def authenticate(authorization: str | None) -> Principal:
        if authorization is None:
            return ANONYMOUS
        if authorization not in known:
            raise unauthenticated("nobody has this credential")
        return known[authorization]

    return authenticate


@asynccontextmanager
async def calling_as(target: str, name: str) -> AsyncIterator[Stubs]:
    """A connection that calls with a credential."""
    async with connected(target) as plain:
        channel = aio.insecure_channel(target, options=CHANNEL_OPTIONS, interceptors=_sending(name))
        async with channel:
            kinds = {field: type(getattr(plain, field)) for field in plain.__dataclass_fields__ if field != "channel"}
            yield Stubs(channel=channel, **{field: kind(channel) for field, kind in kinds.items()})


def _sending(name: str) -> Sequence[aio.ClientInterceptor]:
    def add(details: Any) -> Any:
        metadata = aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {name}"))
        return details._replace(metadata=metadata)

    class Unary(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
            return await continuation(add(details), request)

    class ServerStream(aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
            return await continuation(add(details), request)

    class BidiStream(aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
            return await continuation(add(details), requests)

    return [Unary(), ServerStream(), BidiStream()]
