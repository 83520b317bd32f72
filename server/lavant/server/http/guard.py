"""What is refused before it is a call, and what every response carries."""

from collections.abc import Collection, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavant.server.http.errors import refused

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
    """Lets through what reads, from pages of this server or of `origins`.

    `hosts`, if there are any, are the names by which this server may be called: a page of somebody else's
    whose name was made to lead here (DNS rebinding) calls it by another.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and hand it on."""
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message, origin if origin in self._origins else "")
            await send(message)

        refusal = self._refusal(scope, headers, origin)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers, origin: str) -> ASGIApp | None:
        if scope["method"] not in _METHODS:
            return refused(405, "METHOD_NOT_ALLOWED", "only GET and HEAD: HTTP reads", {"Allow": ", ".join(_METHODS)})
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > _LONGEST_TARGET:
            return refused(414, "URI_TOO_LONG", f"the URL must be at most {_LONGEST_TARGET} bytes long")
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > _LARGEST_BODY:
            return refused(413, "CONTENT_TOO_LARGE", "send no body with GET")
        host = headers.get("host", "").lower()
        if self._hosts and _without_port(host) not in self._hosts:
            return refused(403, "PERMISSION_DENIED", "this name is not the server's; allow it with --http-hosts")
        own = (f"http://{host}", f"https://{host}") if host else ()
        if origin and origin not in self._origins and origin.lower() not in own:
            return refused(403, "PERMISSION_DENIED", "pages of this origin may not read; allow it with --http-origins")
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _add_headers(message: MutableMapping[str, Any], origin: str) -> None:
    given = {name for name, _ in message["headers"]}
    message["headers"] = [*message["headers"], *(header for header in _HEADERS if header[0] not in given)]
    if origin:
        message["headers"] += [(b"access-control-allow-origin", origin.encode()), (b"vary", b"Origin")]
