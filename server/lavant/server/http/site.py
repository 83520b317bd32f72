"""The site: the API and the dashboard."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from lavant.server.auth.audit import Audit
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.client_authorities import ClientAuthorities
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.auth.quotas import Quotas
from lavant.server.errors import ServiceError, report_internal_error
from lavant.server.http.access import RequestAdmission
from lavant.server.http.errors import refused, to_response
from lavant.server.http.exports import ExportReceiver
from lavant.server.http.isolation import Isolation
from lavant.server.http.middleware import Guard, WhilePresent
from lavant.server.http.openapi import Endpoint, document
from lavant.server.otlp.exports import Export

_STATIC = Path(__file__).parent / "static"
_REASONS = {404: ("NOT_FOUND", "there is nothing at this path"), 405: ("METHOD_NOT_ALLOWED", "HTTP only reads")}


def site(
    endpoints: Sequence[Endpoint],
    authenticate: Authenticate,
    quotas: Quotas,
    audit: Audit,
    isolation: Isolation,
    by_certificate: CertificatePrincipals | None = None,
    authorities: ClientAuthorities | None = None,
    exports: Sequence[Export] = (),
) -> ASGIApp:
    """Return the application that serves the public HTTP address; `exports` are the methods of OTLP."""
    description = cache(lambda: document(endpoints))  # made when it is first asked for, not at start-up

    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def openapi(_: Request) -> Response:
        return JSONResponse(description())

    routes = [
        Route("/", page),
        Mount("/static", StaticFiles(directory=_STATIC)),
        Route("/openapi.json", openapi),
        *(endpoint.route(quotas, audit) for endpoint in endpoints),
    ]
    streams = [endpoint.pattern() for endpoint in endpoints if endpoint.returns is None]

    def admitted(app: ASGIApp) -> ASGIApp:
        return RequestAdmission(app, authenticate, streams, audit, by_certificate, authorities)

    reading = Guard(admitted(WhilePresent(application(routes))), isolation)
    return ExportReceiver(reading, exports, admitted, quotas, audit, isolation)


def application(routes: Sequence[BaseRoute]) -> ASGIApp:
    """Return an application whose errors are JSON without the text of exceptions."""
    handlers = {ServiceError: _on_error, HTTPException: _on_http_error, Exception: _on_exception}
    return Starlette(routes=routes, exception_handlers=handlers)


def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101
    return to_response(error)


def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    reason, message = _REASONS.get(error.status_code, ("REFUSED", error.detail))
    return refused(error.status_code, reason, message)


def _on_exception(_: Request, error: Exception) -> Response:
    return refused(500, "INTERNAL", report_internal_error(error))
