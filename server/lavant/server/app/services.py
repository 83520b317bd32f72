"""Composition of what callers reach: the services over gRPC and HTTP, and the listeners."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from grpc import aio
from grpc_health.v1 import health, health_pb2_grpc

from lavant.contract.limits import MAX_REQUEST_BYTES
from lavant.server.app.access import Access
from lavant.server.app.certificates import Certificates
from lavant.server.app.lifecycle import SERVICES, App, Health
from lavant.server.app.listeners import admin_listener, http_listeners
from lavant.server.app.scoring import Scoring
from lavant.server.app.settings import Settings
from lavant.server.auth.signing import Signer
from lavant.server.clock import Clock
from lavant.server.http.api import API
from lavant.server.metrics import ServerMetrics
from lavant.server.observability.prometheus import PrometheusMetrics, RuleMetrics
from lavant.server.otlp.exports import Exports
from lavant.server.otlp.traces import Traces
from lavant.server.rpc.access_service import AccessService
from lavant.server.rpc.admission import MAX_METADATA_BYTES, CallAdmission
from lavant.server.rpc.dispatch import Service
from lavant.server.rpc.evaluation_service import EvaluationService
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.limits import CallLimits
from lavant.server.rpc.otlp_services import otlp_services
from lavant.server.rpc.publish import Publisher
from lavant.server.rpc.reflection import add_reflection
from lavant.server.rpc.rule_service import RuleService
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.score_service import ScoreService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.server.scores.alerts.addresses import allowed
from lavant.server.scores.recorder import Recorder
from lavant.server.store.port import Engine
from lavant.server.streaming.frames import StallWatch
from lavant.server.streaming.hub import Hub
from lavant.server.streaming.leases import ConsumerLeases
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.timers import CoarseTimers
from lavant.server.streaming.tokens import PageTokens, ResumeTokens

# gRPC refuses calls when so many streams of a connection are open or not yet cleaned up: 1,000 calls at once on one
# connection are below it. Without that protection (grpc.http.overload_protection), or with a much higher limit, one
# client that opens and resets streams as fast as it can delays the calls of all others by seconds.
_MAX_STREAMS_PER_CONNECTION = 1_280
_MAX_UNARY_CALLS = 10_000  # including those whose requests are still being received


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a server that run before it is called, and that all services share."""

    settings: Settings
    clock: Clock
    random: Random
    engine: Engine
    leases: ConsumerLeases
    signer: Signer
    access: Access
    scoring: Scoring
    traces: Traces
    metrics: ServerMetrics
    rule_metrics: RuleMetrics
    certificates: Certificates | None
    interceptors: Sequence[aio.ServerInterceptor]


def compose(parts: Parts) -> App:
    """Return a server of all services, not yet listening."""
    settings, engine, access, scoring = parts.settings, parts.engine, parts.access, parts.scoring
    stalls = StallWatch(settings.write_timeout)
    hub = Hub(engine, settings.tail_bytes)
    streaming = Streaming(
        engine=engine,
        hub=hub,
        leases=parts.leases,
        tokens=ResumeTokens(parts.signer, engine.identity.epoch),
        calls=access.calls,
        clock=parts.clock,
        random=parts.random,
        max_age=settings.max_stream_age,
        stalls=stalls,
        timers=CoarseTimers(parts.clock),
        metrics=parts.metrics.streams["grpc"],
    )
    publisher = Publisher(
        engine=engine,
        calls=access.calls,
        clock=parts.clock,
        stalls=stalls,
        quotas=access.run_quotas,
        audit=access.audit,
        metrics=parts.metrics.appends,
    )
    # A copied store keeps its epoch, but positions in lists are specific to the engine: the key distinguishes engines.
    page_tokens = PageTokens(parts.signer, engine.identity.epoch + ("+nats" if settings.store_is_shared else ""))
    watcher = RunWatcher(streaming, page_tokens)
    runs = RunService(engine, page_tokens, access.calls, parts.clock, watcher, access.run_quotas)
    events = EventService(streaming, publisher)
    may_post = partial(allowed, prefixes=settings.webhooks)
    rules = RuleService(scoring.rules, page_tokens, may_post, scoring.statuses.of)
    evaluations = EvaluationService(streaming, scoring.rules)
    recorder = Recorder(engine, parts.clock, parts.metrics.scores)
    scores = ScoreService(engine, recorder, scoring.index, scoring.follower, page_tokens)
    keys = AccessService(access.keys, access.tokens, page_tokens, parts.clock)

    health_service = Health()
    exports = Exports(parts.traces, recorder)
    services = [each.service() for each in (runs, events, rules, evaluations, scores, keys)] + otlp_services(exports)
    server = _grpc_server(parts, services, health_service)
    metrics = PrometheusMetrics(
        server=parts.metrics,
        calls=access.calls,
        leases=parts.leases,
        hub=hub,
        rules=parts.rule_metrics,
        most_tenants=settings.metric_tenants,
    )
    api = API(
        access=keys,
        runs=runs,
        watcher=watcher,
        events=EventService(replace(streaming, metrics=parts.metrics.streams["http"]), publisher),
        scores=scores,
        rules=rules,
        tokens=streaming.tokens,
    )
    return App(
        settings,
        access.calls,
        server,
        health_service,
        metrics,
        http=http_listeners(settings, api.endpoints(), access, exports.methods(), parts.certificates),
        admin=admin_listener(settings, access, metrics=metrics.exposition, is_draining=lambda: access.calls.draining),
        credentials=None if parts.certificates is None else parts.certificates.grpc_credentials(),
    )


def _grpc_server(parts: Parts, services: Sequence[Service], health_service: Health) -> aio.Server:
    settings, access = parts.settings, parts.access
    scopes = {method: needed for service in services for method, needed in service.scopes().items()}
    limits = CallLimits(settings.max_streams + _MAX_UNARY_CALLS, settings.max_publishing_calls, settings.peer_share)
    admission = CallAdmission(
        access.authenticate, scopes, limits, access.audit, access.by_certificate, access.authorities
    )
    server = aio.server(interceptors=(admission, *parts.interceptors), options=server_options(settings))
    server.add_generic_rpc_handlers(
        tuple(service.handlers(access.quotas, access.audit, limits.receiving) for service in services)
    )
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    if settings.serves_reflection:
        add_reflection((*SERVICES, health.SERVICE_NAME), server)
    return server


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Return the options of the gRPC server."""
    return [
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        # By default gRPC drops calls of any client at random while 1,000 wait for Python.
        ("grpc.server.max_pending_requests", _MAX_UNARY_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_UNARY_CALLS),
        # Above its soft limit, by default the 8 KiB that are allowed here, gRPC refuses calls at random.
        ("grpc.max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # Else the window of every call grows to 4 MiB and more, also of those that nothing is read from.
        ("grpc.http2.bdp_probe", 0),
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
