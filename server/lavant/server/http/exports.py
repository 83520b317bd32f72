"""OTLP over HTTP: POST of /v1/traces, /v1/logs and /v1/metrics, as protobuf or JSON.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import asyncio
import base64
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lavant.server.auth.audit import DENIALS, Audit
from lavant.server.auth.principal import CALLER
from lavant.server.auth.principal import Scope as PrincipalScope
from lavant.server.auth.quotas import Quota, Quotas
from lavant.server.errors import ServiceError, report_internal_error
from lavant.server.http.access import source_of
from lavant.server.http.errors import STATUSES, retry_headers
from lavant.server.http.isolation import Isolation
from lavant.server.otlp.exports import Export
from lavant.server.turns import Origin, serve

PATHS = "/v1/"
_MOST_BYTES = 16 << 20  # of a body, also after it is decompressed
_MOST_BODIES = 8  # that are received and decoded at a time
_BODY_LIMIT = 20.0  # seconds until a body has arrived
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


class _RefusedError(Exception):
    """A request that HTTP itself refuses."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ExportReceiver:
    """Answers exports; all other requests go to `app`.

    An export changes something, so no page of another site may send one: isolation decides as for all requests. At most
    eight bodies are in memory at a time, each of up to 16 MiB, compressed or not.
    """

    def __init__(
        self,
        app: ASGIApp,
        exports: Iterable[Export],
        admission: Callable[[ASGIApp], ASGIApp],
        quotas: Quotas,
        audit: Audit,
        isolation: Isolation,
    ) -> None:
        self._app = app
        self._exports = {export.path: export for export in exports}
        self._admitted = admission(self._respond)
        self._quotas = quotas
        self._audit = audit
        self._isolation = isolation
        self._bodies = asyncio.Semaphore(_MOST_BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        if scope["type"] != "http" or not scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
        else:
            await (self._isolation.refusal(scope) or self._admitted)(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_json = _media_type(scope) == _JSON
        headers: dict[str, str] = {}
        try:
            answer, status = await self._answer(scope, receive), 200
        except _RefusedError as error:
            answer, status = Status(message=str(error)), error.status
        except ServiceError as error:
            if error.reason in DENIALS:
                self._audit.denied(source_of(scope, f"POST {scope['path']}"), CALLER.get(), error)
            headers = retry_headers(error)
            answer, status = Status(message=error.message), STATUSES.get(error.reason, 500)
        except Exception as error:
            answer, status = Status(message=report_internal_error(error)), 500
        body: bytes | str = json_format.MessageToJson(answer) if is_json else answer.SerializeToString()
        await Response(body, status, headers, media_type=_JSON if is_json else _PROTOBUF)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Message:
        export = self._exports.get(scope["path"])
        if export is None:
            raise _RefusedError(404, f"there is nothing at this path; use {', '.join(self._exports)}")
        if scope["method"] != "POST":
            raise _RefusedError(405, "use POST")
        kind, principal = _media_type(scope), CALLER.get()
        if kind not in (_PROTOBUF, _JSON):
            raise _RefusedError(415, f"content-type must be {_PROTOBUF} or {_JSON}")
        principal.require(PrincipalScope.RUNS_PUBLISH)
        host, _ = scope.get("client") or ("", 0)
        serve(Origin(principal.tenant, f"http:{host} {principal.id}"))
        with self._quotas.using(Quota.CALLS, principal):
            async with self._bodies:
                try:
                    async with asyncio.timeout(_BODY_LIMIT):
                        data = await _body(scope, receive)
                except TimeoutError:
                    raise _RefusedError(408, f"the body did not arrive within {_BODY_LIMIT:g} s") from None
                request = _parsed(export.request_type, data, is_json=kind == _JSON)
                return await export.answer(request, principal)


def _media_type(scope: Scope) -> str:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Receive a body, and decompress it."""
    encoding = Headers(scope=scope).get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise _RefusedError(415, "content-encoding must be gzip or identity")
    data = bytearray()
    is_whole = False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        data += message.get("body", b"")
        is_whole = not message.get("more_body", False)
        if len(data) > _MOST_BYTES:
            raise _too_large()
    return bytes(data) if encoding == "identity" else _decompressed(data)


def _decompressed(data: bytearray) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, _MOST_BYTES + 1)
    except zlib.error:
        raise _RefusedError(400, "the body is not gzip, as content-encoding says") from None
    if len(plain) > _MOST_BYTES:
        raise _too_large()
    if not unpacker.eof:
        raise _RefusedError(400, "the body ends in the middle of its gzip stream")
    return plain


def _too_large() -> _RefusedError:
    return _RefusedError(413, f"the body must have at most {_MOST_BYTES:,} bytes; send fewer spans at a time")


def _parsed(request_type: type[Message], data: bytes, *, is_json: bool) -> Message:
    try:
        if not is_json:
            return request_type.FromString(data)
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError("a message is an object")
        return json_format.ParseDict(_with_base64(value), request_type(), ignore_unknown_fields=True)
    except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError):
        name = request_type.DESCRIPTOR.full_name
        raise _RefusedError(400, f"the body is not a {name} in the encoding of its content-type") from None


def _with_base64(value: Any) -> Any:
    """Return JSON with IDs in base64, as protobuf reads bytes: OTLP writes them in hexadecimal digits."""
    if isinstance(value, list):
        return [_with_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _base64(each) if key in _IDS else _with_base64(each) for key, each in value.items()}


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()
