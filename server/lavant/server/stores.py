"""Opens the store that the settings name."""

import apsw

from lavant.server.clock import Clock
from lavant.server.errors import StartError
from lavant.server.measures import Measures
from lavant.server.settings import Settings
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable


async def open_engine(settings: Settings, clock: Clock, measures: Measures) -> Engine:
    """Open a store, or create it; raises StartError, which says what to do."""
    return await (_open_jetstream if settings.store_is_shared else _open_sqlite)(settings, clock, measures)


async def _open_sqlite(settings: Settings, clock: Clock, measures: Measures) -> Engine:
    try:
        return await SQLiteEngine.open(settings.store_path, clock=clock, measures=measures.store)
    except StoreUnusable as error:
        raise StartError(str(error)) from error
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the store {settings.store_path}: {error}") from error


async def _open_jetstream(settings: Settings, clock: Clock, measures: Measures) -> Engine:
    """Import NATS, which a server with a store of its own has no need of."""
    try:
        from lavant.server.store import jetstream
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise StartError(f"a store on NATS needs {package}: pip install 'lavant[server,nats]'") from None
    try:
        location = jetstream.Location.parse(settings.store)
    except ValueError as error:
        raise StartError(f"store: {error}") from None
    limits = jetstream.Limits(settings.nats_replicas, settings.nats_max_bytes)
    try:
        return await jetstream.JetStreamEngine.open(location, clock, limits=limits, measures=measures.store)
    except jetstream.StoreUnusable as error:
        raise StartError(f"cannot use the store {location}: {error}") from error
    except jetstream.Unanswered as error:
        raise StartError(f"cannot reach the store {location} ({error}); are its servers running?") from error
