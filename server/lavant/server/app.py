"""Composition: from settings to a server that serves."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from starlette.routing import Route

from lavant.server.abandonment import AbandonmentWatch
from lavant.server.clock import Clock, SystemClock
from lavant.server.errors import StartError
from lavant.server.evaluation.census import Census
from lavant.server.evaluation.desks import Desks
from lavant.server.http.api import API
from lavant.server.http.listener import Listener
from lavant.server.http.scores import ScoresAPI
from lavant.server.http.site import site
from lavant.server.lifecycle import SERVICES, App
from lavant.server.measures import Measures, StreamMeasures
from lavant.server.observability.metrics import Metrics
from lavant.server.observability.rule_collector import RuleCollector
from lavant.server.retention import Retention
from lavant.server.rpc.evaluation_service import EvaluationService
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.score_service import ScoreService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.score_keeping import Scores, keeping_scores
from lavant.server.scores.recording import Recorder
from lavant.server.scores.webhooks import allowed
from lavant.server.settings import OFF, STORE_KEY_ID, Settings, host_of, is_loopback
from lavant.server.store.port import Engine
from lavant.server.stores import open_engine
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.cursors import Cursors
from lavant.server.streaming.held_stream import Streaming
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.places import Places
from lavant.server.streaming.signing import Signer
from lavant.server.streaming.tokens import ResumeTokens

if TYPE_CHECKING:
    from lavant.server.observability.tracing import Tracing

_MAX_STREAMS_PER_CONNECTION = 100  # unbounded, rapid resets of one client starve the others
_MAX_REQUEST_BYTES = 4 << 20
_TO_TELL_THE_REASON = 5.0  # seconds to tell an HTTP reader that it was too slow, before its connection is cut
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_MAX_UNARY_CALLS = 10_000  # also those whose requests have not come whole yet


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock | None = None, random: Random | None = None
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
        engine = await open_engine(settings, clock, measures)
        stack.push_async_callback(engine.close)
        places = Places(engine.leases, clock)
        stack.push_async_callback(places.close)
        await stack.enter_async_context(AbandonmentWatch(engine, clock))
        if settings.retention is not None:
            await stack.enter_async_context(Retention(engine, clock, settings.retention))
        desks = Desks(engine, clock, measures.scores)
        stack.push_async_callback(desks.close)
        scores = await stack.enter_async_context(keeping_scores(settings, engine, places, clock, desks.rulebook.all))
        desks.scored_runs = scores.scored_runs
        census = await stack.enter_async_context(Census(engine, clock, places, desks, scores.statuses.of))
        interceptors = () if tracing is None else (tracing.interceptor,)
        rules = RuleCollector(census, desks, measures.scores, clock)
        random = random or SystemRandom()
        app = _compose(settings, engine, places, desks, scores, rules, clock, random, measures, interceptors)
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


def _compose(
    settings: Settings,
    engine: Engine,
    places: Places,
    desks: Desks,
    scores: Scores,
    rules: RuleCollector,
    clock: Clock,
    random: Random,
    measures: Measures,
    interceptors: Sequence[aio.ServerInterceptor],
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
    # Positions in lists are an engine's own: where a copied store keeps its epoch, they must not be taken for others.
    cursors = Cursors(signer, engine.identity.epoch + ("+nats" if settings.store_is_shared else ""))
    watcher = RunWatcher(engine, cursors, calls, clock, settings.write_timeout)
    publisher = Publisher(engine=engine, calls=calls, stall_limit=settings.write_timeout, measures=measures.appends)
    server = aio.server(
        interceptors=interceptors,
        options=_server_options(settings),
        maximum_concurrent_rpcs=settings.max_streams + _MAX_UNARY_CALLS,
    )
    runs = RunService(engine, cursors, calls, clock, watcher)
    events = EventService(streaming, publisher)
    may_post = partial(allowed, prefixes=settings.webhooks)
    evaluations = EvaluationService(streaming, desks, cursors, may_post, scores.statuses.of)
    scoring = ScoreService(Recorder(engine, clock, measures.scores), scores.index, scores.follower, cursors)
    services = (runs, events, evaluations, scoring)
    server.add_generic_rpc_handlers(tuple(service.handlers() for service in services))
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if settings.reflection:
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    metrics = Metrics(measures=measures, calls=calls, places=places, hub=hub, rules=rules)
    shown_events = EventService(replace(streaming, measures=measures.streams["http"]), publisher)
    apis = API(runs, watcher, shown_events, streaming.tokens), ScoresAPI(scoring, evaluations, shown_events)
    routes = [route for api in apis for route in api.routes()]
    return App(settings, calls, server, health_service, metrics, _listener(settings, routes, metrics, calls))


def _listener(settings: Settings, routes: Sequence[Route], metrics: Metrics, calls: Calls) -> Listener | None:
    if settings.http == OFF:
        return None
    host = host_of(settings.http)
    app = site(
        routes,
        metrics=metrics.exposition,
        is_draining=lambda: calls.draining,
        hosts={*_LOCAL_NAMES, host, *settings.http_hosts} if is_loopback(host) else (),
        origins=settings.http_origins,
    )
    return Listener(
        app,
        max_connections=settings.max_connections,
        stall_limit=settings.write_timeout + _TO_TELL_THE_REASON,
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
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
        ("grpc.keepalive_time_ms", round(settings.ping_interval * 1_000)),
        ("grpc.keepalive_timeout_ms", round(settings.ping_timeout * 1_000)),
        # The one above is without effect while this one, which is 60 s by default, has not passed.
        ("grpc.http2.ping_timeout_ms", round(settings.ping_timeout * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
