"""Composition: from settings to a server that serves."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING

import apsw
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lavant.server.abandonment import AbandonmentWatch
from lavant.server.clock import Clock, SystemClock
from lavant.server.errors import StartError
from lavant.server.evaluation.desks import Desks
from lavant.server.http.api import API
from lavant.server.http.listener import Listener
from lavant.server.http.site import site
from lavant.server.lifecycle import SERVICES, App
from lavant.server.measures import Measures, StreamMeasures
from lavant.server.observability.metrics import Metrics
from lavant.server.retention import Retention
from lavant.server.rpc.evaluation_service import EvaluationService
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.score_service import ScoreService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.scores.alert_log import AlertLog
from lavant.server.scores.alerting import Alerting, RulesOf
from lavant.server.scores.follower import Follower
from lavant.server.scores.index import ScoreIndex
from lavant.server.scores.recording import Recorder
from lavant.server.scores.webhooks import allowed
from lavant.server.settings import OFF, STORE_KEY_ID, Settings, host_of, is_loopback
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.cursors import Cursors
from lavant.server.streaming.held_stream import Streaming
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.places import Places
from lavant.server.streaming.signing import Signer
from lavant.server.streaming.tokens import ResumeTokens
from lavant.v1.rule_pb2 import Rule

if TYPE_CHECKING:
    from lavant.server.observability.tracing import Tracing

_MAX_STREAMS_PER_CONNECTION = 100  # unbounded, rapid resets of one client starve the others
_MAX_REQUEST_BYTES = 4 << 20
_TO_TELL_THE_REASON = 5.0  # seconds to tell an HTTP reader that it was too slow, before its connection is cut
_TENANTS = ("default",)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_MAX_UNARY_CALLS = 10_000  # one whose request never comes whole waits for its deadline, or for ever


async def _no_rules(tenant: str) -> Sequence[Rule]:  # noqa: ARG001
    """There are no rules yet."""
    return ()


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock | None = None, random: Random | None = None, rules_of: RulesOf = _no_rules
) -> AsyncIterator[App]:
    """Serve for the length of the block, then drain and let go of the store.

    Raises StartError if the store cannot be opened, or the address cannot be had.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        tracing = _tracing() if settings.otel else None
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        measures = Measures(StreamMeasures if tracing is None else tracing.new_streams)
        engine = await _open_engine(settings, clock, measures)
        stack.push_async_callback(engine.close)
        places = Places(engine.leases, clock)
        stack.push_async_callback(places.close)
        desks = Desks(engine, clock)
        stack.push_async_callback(desks.close)
        await stack.enter_async_context(AbandonmentWatch(engine, clock))
        if settings.retention is not None:
            await stack.enter_async_context(Retention(engine, clock, settings.retention))
        index = await _open_index(settings, engine)
        stack.push_async_callback(index.close)
        follower = await stack.enter_async_context(Follower(engine, index, clock, _TENANTS))
        await _watch_over_scores(stack, settings, engine, places, clock, index, follower, rules_of)
        interceptors = () if tracing is None else (tracing.interceptor,)
        app = _compose(
            settings, engine, places, desks, clock, random or SystemRandom(), measures, interceptors, index, follower
        )
        stack.push_async_callback(app.stop)
        await app.start()
        yield app


def _tracing() -> "Tracing":
    """Import OpenTelemetry, which a server that does not trace has no need of."""
    try:
        from lavant.server.observability.tracing import Tracing
    except ImportError:
        raise StartError("tracing needs OpenTelemetry: pip install 'lavant[otel]'") from None
    return Tracing()


async def _open_engine(settings: Settings, clock: Clock, measures: Measures) -> Engine:
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


async def _watch_over_scores(
    stack: AsyncExitStack,
    settings: Settings,
    engine: Engine,
    places: Places,
    clock: Clock,
    index: ScoreIndex,
    follower: Follower,
    rules_of: RulesOf,
) -> None:
    """Look after alerts until the stack ends; what posts them is imported where something may be posted."""
    is_allowed = partial(allowed, prefixes=settings.webhooks)
    logs = [AlertLog(engine, clock, tenant) for tenant in _TENANTS]
    for log in logs:
        stack.callback(log.close)
    await stack.enter_async_context(
        Alerting(index=index, follower=follower, clock=clock, logs=logs, rules_of=rules_of, allowed=is_allowed)
    )
    if settings.webhooks:
        from lavant.server.scores.posting import Poster

        await stack.enter_async_context(
            Poster(clock=clock, logs=logs, places=places, rules_of=rules_of, allowed=is_allowed)
        )


async def _open_index(settings: Settings, engine: Engine) -> ScoreIndex:
    """Open the index beside a store of this process's own; one of a shared store goes with the process."""
    if settings.store_is_shared:
        return await ScoreIndex.open(None, engine.identity.epoch)
    path = settings.store_path.with_name(f"{settings.store_path.name}.scores")
    try:
        return await ScoreIndex.open(path, engine.identity.epoch)
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the index of scores {path}: {error}") from error


def _compose(
    settings: Settings,
    engine: Engine,
    places: Places,
    desks: Desks,
    clock: Clock,
    random: Random,
    measures: Measures,
    interceptors: Sequence[aio.ServerInterceptor],
    index: ScoreIndex,
    follower: Follower,
) -> App:
    calls = Calls(settings.max_streams)
    hub = Hub(engine, settings.tail_bytes)
    signer = _signer(settings, engine)
    streaming = Streaming(
        engine=engine,
        hub=hub,
        places=places,
        tokens=ResumeTokens(signer, engine.identity.epoch),
        calls=calls,
        clock=clock,
        random=random,
        max_age=settings.max_stream_age,
        stall_limit=settings.write_timeout,
        measures=measures.streams["grpc"],
    )
    cursors = Cursors(signer, engine.identity.epoch)
    watcher = RunWatcher(engine, cursors, calls, clock, settings.write_timeout)
    publisher = Publisher(engine=engine, calls=calls, stall_limit=settings.write_timeout, measures=measures.appends)
    server = aio.server(
        interceptors=interceptors,
        options=_server_options(settings),
        maximum_concurrent_rpcs=settings.max_streams + _MAX_UNARY_CALLS,
    )
    runs = RunService(engine, cursors, calls, clock, watcher)
    scores = ScoreService(Recorder(engine, clock), index, follower, cursors)
    evaluations = EvaluationService(streaming, desks, cursors)
    events = EventService(streaming, publisher)
    services = (runs, events, evaluations, scores)
    server.add_generic_rpc_handlers(tuple(service.handlers() for service in services))
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if settings.reflection:
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    metrics = Metrics(measures=measures, calls=calls, places=places, hub=hub)
    shown_events = EventService(replace(streaming, measures=measures.streams["http"]), publisher)
    api = API(runs, watcher, shown_events, streaming.tokens)
    return App(settings, calls, server, health_service, metrics, _listener(settings, api, metrics, calls))


def _listener(settings: Settings, api: API, metrics: Metrics, calls: Calls) -> Listener | None:
    if settings.http == OFF:
        return None
    host = host_of(settings.http)
    app = site(
        api,
        metrics=metrics.exposition,
        is_draining=lambda: calls.draining,
        hosts={*_LOCAL_NAMES, host, *settings.http_hosts} if is_loopback(host) else (),
        origins=settings.http_origins,
    )
    return Listener(
        app, max_connections=settings.max_connections, stall_limit=settings.write_timeout + _TO_TELL_THE_REASON
    )


def _signer(settings: Settings, engine: Engine) -> Signer:
    """Keys from the settings sign, if there are any; the store's own key verifies in any case."""
    keys = {key_id: bytes.fromhex(key) for key_id, key in settings.token_keys.items()}
    return Signer({**keys, STORE_KEY_ID: engine.identity.secret})


def _server_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.workers > 1)),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
