"""Isolation from foreign web pages: which callers are accepted, by Host, Origin and Sec-Fetch-Site."""

import ipaddress
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from lavant.server.errors import ServiceError
from lavant.server.http.errors import refused
from lavant.v1.error_pb2 import ErrorReason

_OWN_SITES = ("", "same-origin", "none")  # absent: not a browser, or one on plain HTTP; none: typed or bookmarked
_API = "/api/"


class Isolation:
    """Decides which requests come from a page that may call this server, or from no page at all.

    `hosts` are the names under which the server may be called: a page of a foreign name that resolves to this address
    (DNS rebinding) uses another one. With `addresses`, IP addresses are accepted too, which no such page can use.
    Pages of `origins` may call from other sites. All other pages may only link to the site.
    """

    def __init__(self, *, hosts: Collection[str], origins: Collection[str] = (), addresses: bool = False) -> None:
        self.origins = frozenset(origins)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._addresses = addresses

    def refusal(self, scope: Scope) -> ASGIApp | None:
        """Return the response to a request that is not accepted, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            return refused(403, "PERMISSION_DENIED", f"host {host!r} is not allowed; allow it with --http-hosts")
        origin = headers.get("origin", "")
        if origin in self.origins:
            return None
        own = (f"http://{host}", f"https://{host}") if host else ()
        if origin and origin.lower() not in own:
            return refused(403, "PERMISSION_DENIED", f"origin {origin!r} is not allowed; allow it with --http-origins")
        # Pages load images, frames and scripts without an Origin, and with side effects: a stream acquires a lease.
        site = headers.get("sec-fetch-site", "")
        if site not in _OWN_SITES and not _is_link(headers, scope["path"]):
            return refused(
                403,
                "PERMISSION_DENIED",
                f"a page of another site made this request (Sec-Fetch-Site: {site}); allow its origin with "
                "--http-origins, and read with EventSource or fetch",
            )
        return None

    def _is_own(self, host: str) -> bool:
        name = _without_port(host)
        return name in self._hosts or (self._addresses and _is_address(name))


def check_displacing(headers: Headers, query: Any) -> None:
    """Check that no foreign page can have made a request that acquires a consumer's lease, or raise PERMISSION_DENIED.

    Browsers name the site of a request over HTTPS and on loopback only. Over plain HTTP beyond loopback, a foreign
    page's request looks like an own page's, unless it has a credential, which no foreign page has.
    """
    is_browser = headers.get("user-agent", "").startswith("Mozilla/")  # all of them; pages cannot change it unasked
    names_its_site = "sec-fetch-site" in headers or "origin" in headers
    has_credential = "authorization" in headers or "access_token" in query
    if is_browser and not names_its_site and not has_credential:
        raise ServiceError(
            ErrorReason.ERROR_REASON_PERMISSION_DENIED,
            "a browser does not say over plain HTTP which site's page reads as this consumer; serve HTTPS, or read "
            "without consumer",
        )


def _is_link(headers: Headers, path: str) -> bool:
    """Return whether a person follows a link to the dashboard."""
    is_navigation = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return is_navigation and not path.startswith(_API)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
