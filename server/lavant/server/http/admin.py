"""The admin site: health and metrics, on an address of its own that public traffic cannot exhaust."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.principal import Scope
from lavant.server.http.access import authorization
from lavant.server.http.isolation import Isolation
from lavant.server.http.middleware import Guard
from lavant.server.http.site import application


def admin_site(
    isolation: Isolation,
    authenticate: Authenticate,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    is_draining: Callable[[], bool],
) -> ASGIApp:
    """Return the application that serves the admin address. Only metrics need credentials: they name tenants."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("draining\n", 503) if is_draining() else PlainTextResponse("ok\n")

    async def scrape(request: Request) -> Response:
        authenticate(authorization(request.scope)).require(Scope.METRICS)
        body, kind = metrics()
        return Response(body, headers={"Content-Type": kind})

    routes = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)]
    return Guard(application(routes), isolation)
