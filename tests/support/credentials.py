"""Credentials in tests: channels whose calls carry one, and keys to call with."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from grpc import aio

from lavant.v1.access_service_pb2 import CreateKeyRequest, Key, Restriction
from support.leaks import secret

if TYPE_CHECKING:
    from support.server import Stubs


def authorized(credential: str) -> Sequence[aio.ClientInterceptor]:
    """Interceptors that send a credential with every call."""

    def add(details: Any) -> Any:
        metadata = aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {credential}"))
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


async def create_key(
    stubs: "Stubs", *scopes: str, name: str = "agent", tenant: str = "", restriction: Restriction | None = None
) -> tuple[Key, str]:
    """Create a key with some scopes; returns it and its text."""
    key = Key(name=name, tenant=tenant, scopes=scopes, restriction=restriction)
    response = await stubs.access.CreateKey(CreateKeyRequest(key=key))
    return response.key, secret(response.secret)  # its server may run in another process


@asynccontextmanager
async def calling_with(stubs: "Stubs", target: str, *scopes: str, **settings: Any) -> AsyncIterator["Stubs"]:
    """A connection that calls with a new key."""
    from support.server import connected

    _, secret = await create_key(stubs, *scopes, **settings)
    async with connected(target, bearer=secret) as own:
        yield own
