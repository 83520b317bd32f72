"""Admission of requests to the API: who calls, by the credentials of the request."""

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lavant.server.auth.access_tokens import TOKEN_PREFIX
from lavant.server.auth.audit import DENIALS, Audit, CallSource
from lavant.server.auth.authentication import Authenticate
from lavant.server.auth.client_authorities import CERTIFICATE, ClientAuthorities
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.auth.principal import CALLER, Principal, unauthenticated
from lavant.server.errors import ServiceError
from lavant.server.http.errors import to_response
from lavant.server.http.listener import CERTIFICATE_NAMES, PEER_CERTIFICATE
from lavant.server.streaming.peers import PEER

_PATHS = ("/api/", "/v1/")  # the API, and OTLP
_PARAMETER = "access_token"


class RequestAdmission:
    """Admits requests to the API with valid credentials, before anything else is done for them.

    What each path needs is declared by its endpoint. All other paths hold nothing of any tenant. Requests to `streams`
    may have an access token in their URL, as an EventSource cannot send a header; it is removed here, so that nothing
    behind can log it.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate,
        streams: Collection[re.Pattern[str]],
        audit: Audit,
        by_certificate: CertificatePrincipals | None = None,
        authorities: ClientAuthorities | None = None,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._streams = streams
        self._by_certificate = by_certificate
        self._authorities = authorities
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as the caller, or refuse."""
        if scope["path"].startswith(_PATHS):
            PEER.set(scope["client"][0] if scope.get("client") else "")
            try:
                CALLER.set(self._principal(scope))
            except ServiceError as error:
                if error.reason in DENIALS:
                    self._audit.denied(source_of(scope, ""), None, error)
                await to_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _principal(self, scope: Scope) -> Principal:
        if self._authorities is not None:
            CERTIFICATE.set(scope["state"].get(PEER_CERTIFICATE, b""))
            self._authorities.check(CERTIFICATE.get())
        given = self._credentials(scope)
        if given is None and self._by_certificate is not None:
            return self._by_certificate(scope["state"].get(CERTIFICATE_NAMES, ()))
        return self._authenticate(given)

    def _credentials(self, scope: Scope) -> str | None:
        """Return the credentials as `authorization` has them, after those of the URL were removed from it."""
        header = authorization(scope)
        tokens = _taken_from_url(scope)
        if not tokens:
            return header
        if not any(path.match(scope["path"]) for path in self._streams):
            raise unauthenticated(f"only streams take the parameter {_PARAMETER}; send the header `authorization`")
        if header is not None or len(tokens) > 1:
            raise unauthenticated("the request has several credentials; send one")
        if not tokens[0].startswith(TOKEN_PREFIX):
            raise unauthenticated(f"{_PARAMETER} must be an access token: URLs are logged, and live longer than those")
        return f"Bearer {tokens[0]}"


def source_of(scope: Scope, method: str) -> CallSource:
    """Return where a request comes from."""
    client = scope.get("client")
    return CallSource("http", client[0] if client else "", method)


def authorization(scope: Scope) -> str | None:
    """Return the credentials of a request, None if there are none. Raises UNAUTHENTICATED if there are several."""
    given = Headers(scope=scope).getlist("authorization")
    if len(given) > 1:
        raise unauthenticated("the request has several credentials; send one")
    return given[0] if given else None


def _taken_from_url(scope: Scope) -> list[str]:
    """Remove the access tokens from the URL of a request, and return them."""
    if _PARAMETER.encode() not in scope["query_string"] and b"%" not in scope["query_string"]:
        return []
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == _PARAMETER]
    if tokens:
        scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != _PARAMETER]).encode()
    return tokens
