"""The admin site: health and metrics, on an address of its own that public traffic cannot exhaust."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lavant.server.auth.audit import DENIALS, Audit
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.principal import Scope
from lavant.server.errors import ServiceError
from lavant.server.http.access import authorization, source_of
from lavant.server.http.isolation import Isolation
from lavant.server.http.middleware import Guard
from lavant.server.http.site import application


def admin_site(
    isolation: Isolation,
    authenticate: Authenticate,
    audit: Audit,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    is_draining: Callable[[], bool],
) -> ASGIApp:
    """Return the application that serves the admin address. Only metrics need credentials: they name tenants.

    Whoever is refused them is recorded.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("draining\n", 503) if is_draining() else PlainTextResponse("ok\n")

    async def scrape(request: Request) -> Response:
        caller = None
        try:
            caller = authenticate(authorization(request.scope))
            caller.require(Scope.METRICS)
        except ServiceError as error:
            if error.reason in DENIALS:
                audit.denied(source_of(request.scope, "GET /metrics"), caller, error)
            raise
        body, kind = metrics()
        return Response(body, headers={"Content-Type": kind})

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)]
    return Guard(application(routes), isolation)
