"""API keys in a store without a server: how the first one is made."""

from lavant.client.cli.session import CommandError
from lavant.server.app.stores import open_engine
from lavant.server.auth.keys import Keys
from lavant.server.auth.principal import DEFAULT_TENANT, is_tenant
from lavant.server.clock import SystemClock
from lavant.server.commands.stores import store_settings
from lavant.server.errors import ServiceError, StartError
from lavant.server.metrics import ServerMetrics
from lavant.v1.access_service_pb2 import CreateKeyResponse, Key

_CREATED_BY = "lavant keys create --store"


async def create_in_store(store: str, key: Key) -> CreateKeyResponse:
    """Create a key in a store; that of a file must have no running server. Raises CommandError."""
    key.tenant = key.tenant or DEFAULT_TENANT
    if not is_tenant(key.tenant):
        raise CommandError(f"tenant {key.tenant!r} must be 1 to 64 characters of a-z 0-9 -, and not lavant")
    clock = SystemClock()
    try:
        engine = await open_engine(store_settings(store), clock, ServerMetrics())
    except StartError as error:
        raise CommandError(str(error)) from None
    try:
        async with Keys(engine, clock) as keys:
            made, secret = await keys.create(key, _CREATED_BY)
    except ServiceError as error:
        raise CommandError(error.message) from None
    finally:
        await engine.close()
    return CreateKeyResponse(key=made, secret=secret)
