"""The store that the settings name, opened or created."""

import apsw

from lavant.server.app.nats_location import location_of
from lavant.server.app.settings import Settings
from lavant.server.clock import Clock
from lavant.server.errors import StartError
from lavant.server.metrics import ServerMetrics
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable


async def open_engine(settings: Settings, clock: Clock, metrics: ServerMetrics) -> Engine:
    """Open the store that the settings name, or create it. Raises StartError."""
    if settings.store_is_shared:
        return await _open_jetstream(settings, clock, metrics)
    try:
        return await SQLiteEngine.open(
            settings.store_path, clock=clock, metrics=metrics.store, own_key=not settings.token_keys
        )
    except StoreUnusable as error:
        raise StartError(str(error)) from error
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the store {settings.store_path}: {error}") from error


async def _open_jetstream(settings: Settings, clock: Clock, metrics: ServerMetrics) -> Engine:
    try:
        from lavant.server.store import jetstream  # needs an extra
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise StartError(f"a store on NATS needs {package}: pip install 'lavant[server,nats]'") from None
    try:
        location = location_of(settings)
    except ValueError as error:
        raise StartError(str(error)) from None
    limits = jetstream.Limits(settings.nats_replicas, settings.nats_max_bytes)
    try:
        return await jetstream.JetStreamEngine.open(
            location, clock, limits=limits, metrics=metrics.store, own_key=not settings.token_keys
        )
    except jetstream.StoreUnusable as error:
        raise StartError(f"cannot use the store {location}: {error}") from error
    except jetstream.Unanswered as error:
        raise StartError(f"cannot reach the store {location} ({error}); are its servers running?") from error
