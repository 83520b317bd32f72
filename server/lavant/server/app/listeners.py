"""The HTTP listeners of a server: the public one, and the one for operators."""

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp

from lavant.server.app.access import Access
from lavant.server.app.certificates import Certificates
from lavant.server.app.settings import OFF, Settings, host_of, is_loopback
from lavant.server.auth.authentication import open_to_all
from lavant.server.http.admin import admin_site
from lavant.server.http.isolation import Isolation
from lavant.server.http.listener import Listener
from lavant.server.http.openapi import Endpoint
from lavant.server.http.site import site
from lavant.server.otlp.exports import Export

_SLOW_READER_GRACE = 5.0  # seconds to report SLOW_CONSUMER to an HTTP reader before its connection is cut
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ADMIN_CONNECTIONS = 100  # some probes and scrapers, each with a few connections


def http_listeners(
    settings: Settings,
    endpoints: Sequence[Endpoint],
    access: Access,
    exports: Sequence[Export],
    certificates: Certificates | None,
) -> dict[str, Listener]:
    """Return the listeners of the API, the dashboard and OTLP, by the settings that name their addresses."""
    addresses = {"http": settings.http, "otlp_http": settings.otlp_http}
    used = {name: address for name, address in addresses.items() if address != OFF}
    hosts = {*_LOCAL_NAMES, *map(host_of, used.values()), *settings.http_hosts}
    app = site(
        endpoints,
        access.authenticate,
        access.quotas,
        access.audit,
        Isolation(hosts=hosts, origins=settings.http_origins),
        access.by_certificate,
        access.authorities,
        exports,
    )
    return {name: _public(settings, app, certificates) for name in used}


def _public(settings: Settings, app: ASGIApp, certificates: Certificates | None) -> Listener:
    return Listener(
        app,
        tls=None if certificates is None else certificates.http_context(),
        max_connections=settings.max_connections,
        peer_share=settings.peer_share,
        stall_limit=settings.write_timeout + _SLOW_READER_GRACE,
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
    )


def admin_listener(
    settings: Settings,
    access: Access,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    is_draining: Callable[[], bool],
) -> Listener | None:
    """Return the listener of health and metrics; None if it is off.

    Probes and scrapers call it by an IP address, which no page of a foreign name can do. On loopback, metrics are open
    to everyone, as the process itself is to the users of its machine. Plain HTTP: probes cannot check certificates.
    """
    if settings.admin == OFF:
        return None
    hosts = {*_LOCAL_NAMES, host_of(settings.admin), *settings.http_hosts}
    return Listener(
        admin_site(
            Isolation(hosts=hosts, addresses=True),
            open_to_all if is_loopback(host_of(settings.admin)) else access.authenticate,
            access.audit,
            metrics=metrics,
            is_draining=is_draining,
        ),
        max_connections=_ADMIN_CONNECTIONS,
        peer_share=settings.peer_share,
        stall_limit=settings.write_timeout,
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
    )
