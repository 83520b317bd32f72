"""Start of a server: from settings to one that runs, and back."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from lavant.server.app.access import access
from lavant.server.app.certificates import CertificateFiles, Certificates
from lavant.server.app.descriptors import connection_limit
from lavant.server.app.lifecycle import App
from lavant.server.app.maintenance import AbandonmentWatch
from lavant.server.app.retention import Retention
from lavant.server.app.scoring import scoring
from lavant.server.app.services import Parts, compose
from lavant.server.app.settings import Settings
from lavant.server.app.stores import open_engine
from lavant.server.app.token_keys import TokenKeys
from lavant.server.auth.keys import Keys
from lavant.server.auth.principal import DEFAULT_TENANT, Scope
from lavant.server.clock import Clock, SystemClock
from lavant.server.errors import StartError
from lavant.server.evaluation.log import RECORDS
from lavant.server.metrics import ServerMetrics, StreamMetrics
from lavant.server.observability.census import Census
from lavant.server.observability.prometheus import RuleMetrics
from lavant.server.otlp.endings import TraceEndings
from lavant.server.otlp.traces import Traces
from lavant.server.store.tenants import Tenants
from lavant.server.streaming.leases import ConsumerLeases
from lavant.v1.access_service_pb2 import Key

if TYPE_CHECKING:
    from lavant.server.observability.tracing import Tracing


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
        scores = await stack.enter_async_context(scoring(settings, engine, leases, clock, metrics, with_rules))
        census = await stack.enter_async_context(
            Census(engine, clock, leases, scores.rules, scores.rules_of, scores.statuses.of, with_rules)
        )
        callers = await stack.enter_async_context(
            access(settings, engine, token_keys.signer, clock, metrics, certificates)
        )
        traces = Traces(engine, clock, callers.run_quotas, settings.otlp_quiet_time, settings.otlp_idle_timeout)
        await stack.enter_async_context(TraceEndings(traces, clock))
        app = compose(
            Parts(
                settings=settings,
                clock=clock,
                random=random or SystemRandom(),
                engine=engine,
                leases=leases,
                signer=token_keys.signer,
                access=callers,
                scoring=scores,
                traces=traces,
                metrics=metrics,
                rule_metrics=RuleMetrics(census, scores.rules, metrics, clock),
                certificates=certificates,
                interceptors=() if tracing is None else (tracing.interceptor,),
            )
        )
        stack.push_async_callback(app.stop)
        if settings.init_key and not any(callers.keys.all()):
            app.first_key = await _create_first_key(callers.keys)
        await app.start()
        yield app


async def _create_first_key(keys: Keys) -> str:
    """Create the key that creates all others, and return its text."""
    _, text = await keys.create(Key(name="admin", tenant=DEFAULT_TENANT, scopes=list(Scope)), "lavant serve")
    return text


def _tracing() -> "Tracing":
    try:
        from lavant.server.observability.tracing import Tracing  # needs an extra
    except ImportError:
        raise StartError("tracing needs OpenTelemetry: pip install 'lavant[otel]'") from None
    return Tracing()


def _certificates(settings: Settings, clock: Clock) -> Certificates | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca), clock)
