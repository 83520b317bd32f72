"""Middleware: refusal of unsafe requests, security headers, and cancellation when the peer leaves."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavant.server.auth.principal import CALLER
from lavant.server.http.errors import refused
from lavant.server.http.isolation import Isolation
from lavant.server.turns import Origin, serve

_METHODS = ("GET", "HEAD")
_LONGEST_TARGET = 8 << 10
_LARGEST_BODY = 64 << 10
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """Admits requests that read and that its isolation accepts.

    A GET has side effects here: a stream acquires the lease of its consumer. So requests of foreign pages are refused,
    and not only made unreadable as by CORS.
    """

    def __init__(self, app: ASGIApp, isolation: Isolation) -> None:
        self._app = app
        self._isolation = isolation
        self._cors = CORSMiddleware(
            self._check,
            allow_origins=list(isolation.origins),
            allow_methods=_METHODS,
            allow_headers=["Authorization", "Last-Event-ID"],  # credentials are headers: no cookies, no certificates
            expose_headers=["Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, with security headers on every response."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        origin = Headers(scope=scope).get("origin", "")
        await (self._cors if origin in self._isolation.origins else self._check)(scope, receive, guarded)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (_refusal(scope) or self._isolation.refusal(scope) or self._app)(scope, receive, send)


def _refusal(scope: Scope) -> ASGIApp | None:
    """Return the response to a request that does not only read, or is too large; or None."""
    headers = Headers(scope=scope)
    if scope["method"] not in _METHODS:
        return refused(405, "METHOD_NOT_ALLOWED", "use GET or HEAD: HTTP only reads", {"Allow": ", ".join(_METHODS)})
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > _LONGEST_TARGET:
        return refused(414, "URI_TOO_LONG", f"the URL must be at most {_LONGEST_TARGET} bytes long")
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > _LARGEST_BODY:
        # What follows the head is no request to this server: whoever passed it on may have read it as one.
        return refused(413, "CONTENT_TOO_LARGE", "send GET without a body", {"Connection": "close"})
    return None


def _add_headers(message: MutableMapping[str, Any]) -> None:
    given = {name for name, _ in message["headers"]}
    message["headers"] = [*message["headers"], *(header for header in _HEADERS if header[0] not in given)]


class WhilePresent:
    """Cancels the work for a request when its peer leaves.

    Otherwise requests that are sent and dropped would all be worked out, before those that somebody waits for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, or stop. Requests have no bodies, so the application never receives."""
        if (principal := CALLER.get(None)) is not None:
            host, _ = scope.get("client") or ("", 0)  # a browser sends requests over several connections
            serve(Origin(principal.tenant, f"http:{host} {principal.id}"))
        working = asyncio.ensure_future(self._app(scope, receive, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
