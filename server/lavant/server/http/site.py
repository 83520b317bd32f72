"""The whole of what HTTP serves: the API, the dashboard, and what operators ask for."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from lavant.server.errors import LavantError
from lavant.server.http.errors import refused, to_response
from lavant.server.http.guard import Guard
from lavant.server.http.presence import WhilePresent
from lavant.server.incidents import report

_STATIC = Path(__file__).parent / "static"
_REASONS = {404: ("NOT_FOUND", "there is nothing at this path"), 405: ("METHOD_NOT_ALLOWED", "HTTP only reads")}

_log = structlog.get_logger(__name__)


def site(
    routes: Sequence[Route],
    *,
    metrics: Callable[[], tuple[bytes, str]],
    is_draining: Callable[[], bool],
    hosts: Collection[str],
    origins: Collection[str],
) -> ASGIApp:
    """Put it together; `routes` are the API's."""

    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("draining\n", 503) if is_draining() else PlainTextResponse("ok\n")

    async def scrape(_: Request) -> Response:
        body, kind = metrics()
        return Response(body, headers={"Content-Type": kind})

    app = Starlette(
        routes=[
            Route("/", page),
            Mount("/static", StaticFiles(directory=_STATIC)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", scrape),
            *routes,
        ],
        exception_handlers={LavantError: _on_refusal, HTTPException: _on_http_refusal, Exception: _on_failure},
    )
    return Guard(WhilePresent(app), hosts=hosts, origins=origins)


def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, LavantError)  # noqa: S101
    return to_response(error)


def _on_http_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    reason, message = _REASONS.get(error.status_code, ("REFUSED", error.detail))
    return refused(error.status_code, reason, message)


def _on_failure(_: Request, error: Exception) -> Response:
    return refused(500, "INTERNAL", report(error))
