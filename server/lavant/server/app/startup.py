"""Composition: from settings to a running server."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING

import apsw
from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lavant.server.app.certificates import CertificateFiles, Certificates
from lavant.server.app.credentials import authenticating
from lavant.server.app.descriptors import connection_limit
from lavant.server.app.lifecycle import SERVICES, App
from lavant.server.app.listeners import admin_listener, http_listener
from lavant.server.app.maintenance import AbandonmentWatch
from lavant.server.app.nats_location import location_of
from lavant.server.app.retention import Retention
from lavant.server.app.settings import Settings
from lavant.server.app.token_keys import TokenKeys
from lavant.server.auth.access_tokens import AccessTokens
from lavant.server.auth.audit import Audit
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.keys import Keys
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.auth.principal import DEFAULT_TENANT, Scope
from lavant.server.auth.quotas import Quotas
from lavant.server.auth.run_quotas import RunQuotas
from lavant.server.auth.signing import Signer
from lavant.server.clock import Clock, SystemClock
from lavant.server.errors import StartError
from lavant.server.evaluation.directory import RuleDirectory
from lavant.server.evaluation.log import RECORDS
from lavant.server.evaluation.rules import Rules
from lavant.server.http.api import API
from lavant.server.metrics import ServerMetrics, StreamMetrics
from lavant.server.observability.census import Census
from lavant.server.observability.prometheus import PrometheusMetrics, RuleMetrics
from lavant.server.rpc.access import CallAdmission
from lavant.server.rpc.access_service import AccessService
from lavant.server.rpc.evaluation_service import EvaluationService
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.limits import CallLimits
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.rule_service import RuleService
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.score_service import ScoreService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.scores.alerts.addresses import allowed
from lavant.server.scores.alerts.checks import Alerting, RulesOf
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.statuses import AlertStatuses
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.scores.query.scored_runs import ScoredRuns
from lavant.server.scores.recorder import Recorder
from lavant.server.store.port import Engine
from lavant.server.store.sqlite import SQLiteEngine, StoreUnusable
from lavant.server.store.tenants import Tenants
from lavant.server.streaming.calls import Calls
from lavant.server.streaming.frames import StallWatch
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.leases import ConsumerLeases
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.timers import CoarseTimers
from lavant.server.streaming.tokens import PageTokens, ResumeTokens
from lavant.v1.access_service_pb2 import Key

if TYPE_CHECKING:
    from lavant.server.observability.tracing import Tracing

# gRPC refuses calls when so many streams of a connection are open or not yet cleaned up: 1,000 calls at once on one
# connection are below it. Without that protection (grpc.http.overload_protection), or with a much higher limit, one
# client that opens and resets streams as fast as it can delays the calls of all others by seconds.
_MAX_STREAMS_PER_CONNECTION = 1_280
_MAX_REQUEST_BYTES = 4 << 20
_MAX_UNARY_CALLS = 10_000  # including those whose requests are still being received


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock | None = None, random: Random | None = None
) -> AsyncIterator[App]:
    """Serve for the length of the block, then drain and close the store.

    Raises StartError if the store cannot be opened or an address is not available.
    """
    clock = clock or SystemClock()
    max_connections = connection_limit(settings.max_connections, listeners=2)
    settings = settings.model_copy(update={"max_connections": max_connections})
    async with AsyncExitStack() as stack:
        tracing = _tracing() if settings.otel else None
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        certificates = _certificates(settings, clock)
        if certificates is not None:
            await stack.enter_async_context(certificates)
        metrics = ServerMetrics(StreamMetrics if tracing is None else tracing.new_streams)
        engine = await open_engine(settings, clock, metrics)
        stack.push_async_callback(engine.close)
        token_keys = await stack.enter_async_context(TokenKeys(settings, engine, clock))
        leases = ConsumerLeases(engine.leases, clock)
        stack.push_async_callback(leases.close)
        await stack.enter_async_context(AbandonmentWatch(engine, clock))
        tenants = await stack.enter_async_context(Tenants(engine, clock))
        if settings.retention is not None:
            await stack.enter_async_context(Retention(engine, clock, settings.retention, tenants))
        with_rules = partial(tenants.having, RECORDS)
        scores = await stack.enter_async_context(_scores(settings, engine, leases, clock, metrics, with_rules))
        rules = scores.rules
        census = await stack.enter_async_context(
            Census(engine, clock, leases, rules, scores.rules_of, scores.statuses.of, with_rules)
        )
        interceptors = () if tracing is None else (tracing.interceptor,)
        rule_metrics = RuleMetrics(census, rules, metrics, clock)
        random = random or SystemRandom()
        audit = await stack.enter_async_context(Audit(engine, clock, metrics.audit))
        quotas = Quotas(clock, settings.limits_of, metrics.quotas)
        run_quotas = await stack.enter_async_context(RunQuotas(engine, clock, quotas))
        calls = Calls(settings.max_streams, clock, settings.peer_share, quotas)
        keys = await stack.enter_async_context(Keys(engine, clock, calls.revoke))
        tokens = AccessTokens(token_keys.signer, engine.identity.epoch, clock, keys.is_revoked)
        authenticate = await stack.enter_async_context(authenticating(settings, keys, tokens, clock))
        app = _compose(
            settings,
            authenticate,
            keys,
            tokens,
            calls,
            token_keys.signer,
            quotas,
            run_quotas,
            audit,
            engine,
            leases,
            scores,
            rule_metrics,
            clock,
            random,
            metrics,
            interceptors,
            certificates,
        )
        stack.push_async_callback(app.stop)
        if settings.init_key and not any(keys.all()):
            app.first_key = await _create_first_key(keys)
        await app.start()
        yield app


async def _create_first_key(keys: Keys) -> str:
    """Create the key that creates all others, and return its text."""
    _, text = await keys.create(Key(name="admin", tenant=DEFAULT_TENANT, scopes=list(Scope)), "lavant serve")
    return text


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


@dataclass(frozen=True, slots=True)
class _Scores:
    """The index of scores, the rules that record them, and what depends on both."""

    index: ScoreIndex
    follower: Follower
    statuses: AlertStatuses
    rules: Rules
    rules_of: RulesOf


@asynccontextmanager
async def _scores(
    settings: Settings,
    engine: Engine,
    leases: ConsumerLeases,
    clock: Clock,
    metrics: ServerMetrics,
    tenants_with_rules: Callable[[], Sequence[str]],
) -> AsyncIterator[_Scores]:
    """Index scores and evaluate alerts for the length of the block. Raises StartError if the index cannot be opened."""
    async with AsyncExitStack() as stack:
        index = await _open_index(settings, engine)
        stack.push_async_callback(index.close)
        follower = await stack.enter_async_context(Follower(engine, index, clock))
        limits = {"max_rules": settings.max_rules, "max_alerts": settings.max_alerts}
        rules = Rules(engine, clock, ScoredRuns(index, follower), metrics.scores, **limits)
        stack.push_async_callback(rules.close)
        is_allowed = partial(allowed, prefixes=settings.webhooks)
        directory = RuleDirectory(engine, clock, rules)
        stack.callback(directory.close)
        logs = AlertLogs(engine, clock, tenants_with_rules)
        stack.callback(logs.close)
        await stack.enter_async_context(
            Alerting(index=index, follower=follower, clock=clock, logs=logs, rules_of=directory.of, allowed=is_allowed)
        )
        if settings.webhooks:
            from lavant.server.scores.alerts.webhooks import WebhookSender  # imports httpx, which takes 100 ms

            await stack.enter_async_context(
                WebhookSender(clock=clock, logs=logs, leases=leases, rules_of=directory.of, allowed=is_allowed)
            )
        yield _Scores(index, follower, AlertStatuses(index, follower, logs, clock), rules, directory.of)


async def _open_index(settings: Settings, engine: Engine) -> ScoreIndex:
    """Open the index beside a SQLite store; the index of a shared store is temporary."""
    if engine.opening is None:
        return await ScoreIndex.open(None, engine.identity.epoch)
    path = settings.store_path.with_name(f"{settings.store_path.name}.scores")
    try:
        return await ScoreIndex.open(path, engine.identity.epoch, engine.opening)
    except (OSError, apsw.Error) as error:
        raise StartError(f"cannot open the index of scores {path}: {error}") from error


def _tracing() -> "Tracing":
    try:
        from lavant.server.observability.tracing import Tracing  # needs an extra
    except ImportError:
        raise StartError("tracing needs OpenTelemetry: pip install 'lavant[otel]'") from None
    return Tracing()


def _compose(
    settings: Settings,
    authenticate: Authenticate,
    keys: Keys,
    tokens: AccessTokens,
    calls: Calls,
    signer: Signer,
    quotas: Quotas,
    run_quotas: RunQuotas,
    audit: Audit,
    engine: Engine,
    leases: ConsumerLeases,
    scores: _Scores,
    rule_metrics: RuleMetrics,
    clock: Clock,
    random: Random,
    metrics: ServerMetrics,
    interceptors: Sequence[aio.ServerInterceptor],
    certificates: Certificates | None,
) -> App:
    stalls = StallWatch(settings.write_timeout)
    hub = Hub(engine, settings.tail_bytes)
    streaming = Streaming(
        engine=engine,
        hub=hub,
        leases=leases,
        tokens=ResumeTokens(signer, engine.identity.epoch),
        calls=calls,
        clock=clock,
        random=random,
        max_age=settings.max_stream_age,
        stalls=stalls,
        timers=CoarseTimers(clock),
        metrics=metrics.streams["grpc"],
    )
    # A copied store keeps its epoch, but positions in lists are specific to the engine: the key distinguishes engines.
    page_tokens = PageTokens(signer, engine.identity.epoch + ("+nats" if settings.store_is_shared else ""))
    watcher = RunWatcher(streaming, page_tokens)
    publisher = Publisher(
        engine=engine, calls=calls, clock=clock, stalls=stalls, quotas=run_quotas, metrics=metrics.appends
    )
    runs = RunService(engine, page_tokens, calls, clock, watcher, run_quotas)
    events = EventService(streaming, publisher)
    may_post = partial(allowed, prefixes=settings.webhooks)
    rules = RuleService(scores.rules, page_tokens, may_post, scores.statuses.of)
    evaluations = EvaluationService(streaming, scores.rules)
    recorder = Recorder(engine, clock, metrics.scores)
    scoring = ScoreService(engine, recorder, scores.index, scores.follower, page_tokens)
    access = AccessService(keys, tokens, page_tokens, clock)
    services = [each.service() for each in (runs, events, rules, evaluations, scoring, access)]
    by_certificate = None if settings.mtls_principals is None else CertificatePrincipals.read(settings.mtls_principals)
    scopes = {method: needed for service in services for method, needed in service.scopes().items()}
    server = aio.server(
        interceptors=(
            CallAdmission(authenticate, scopes, audit, by_certificate),
            CallLimits(settings.max_streams + _MAX_UNARY_CALLS, settings.peer_share),
            *interceptors,
        ),
        options=_server_options(settings),
    )
    server.add_generic_rpc_handlers(tuple(service.handlers(quotas, audit) for service in services))
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if settings.reflection:
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    prometheus = PrometheusMetrics(
        server=metrics, calls=calls, leases=leases, hub=hub, rules=rule_metrics, most_tenants=settings.metric_tenants
    )
    shown_events = EventService(replace(streaming, metrics=metrics.streams["http"]), publisher)
    api = API(
        access=access,
        runs=runs,
        watcher=watcher,
        events=shown_events,
        scores=scoring,
        rules=rules,
        tokens=streaming.tokens,
    )
    http = http_listener(settings, api.endpoints(), authenticate, quotas, audit, certificates, by_certificate)
    admin = admin_listener(settings, authenticate, metrics=prometheus.exposition, is_draining=lambda: calls.draining)
    credentials = None if certificates is None else certificates.grpc_credentials()
    return App(settings, calls, server, health_service, prometheus, http=http, admin=admin, credentials=credentials)


def _certificates(settings: Settings, clock: Clock) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca), clock)


def _server_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        # By default gRPC drops calls of any client at random while 1,000 wait for Python.
        ("grpc.server.max_pending_requests", _MAX_UNARY_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_UNARY_CALLS),
        ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", round(settings.ping_interval * 1_000)),
        ("grpc.keepalive_timeout_ms", round(settings.ping_timeout * 1_000)),
        # keepalive_timeout has no effect before this one has passed, whose default is 60 s.
        ("grpc.http2.ping_timeout_ms", round(settings.ping_timeout * 1_000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
