"""Endpoints of the API, and the OpenAPI document that is generated from them."""

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp

from lavant.server.auth.audit import DENIALS, Audit
from lavant.server.auth.principal import CALLER, Scope
from lavant.server.auth.quotas import Quota, Quotas
from lavant.server.errors import ServiceError
from lavant.server.http.access import source_of
from lavant.server.http.parameters import Query
from lavant.server.http.sse import EventStreamResponse

_REFERENCE = "#/components/schemas/"
# Messages with a JSON form of their own: https://protobuf.dev/programming-guides/json/
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
}
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "format": "uint32"},
    # As strings: JavaScript's numbers lose digits beyond 2^53.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {
                "reason": {"type": "string", "description": "Reason, such as INVALID_FIELD or RUN_NOT_FOUND."},
                "message": {"type": "string", "description": "Description for people."},
                "fields": {
                    "type": "array",
                    "description": "Fields or parameters that break a rule.",
                    "items": {
                        "type": "object",
                        "properties": {"path": {"type": "string"}, "description": {"type": "string"}},
                    },
                },
                "retry_after": {"type": "number", "description": "Seconds to wait before a retry."},
            },
        }
    },
}

# An empty requirement: a server without authentication serves everybody.
_SECURITY: list[dict[str, list[str]]] = [{"credential": []}, {}]
_STREAM_SECURITY: list[dict[str, list[str]]] = [{"accessToken": []}, *_SECURITY]
_SECURITY_SCHEMES = {
    "credential": {"type": "http", "scheme": "bearer", "description": "API key, access token or JWT."},
    "accessToken": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "Access token, for readers that cannot send a header, such as an EventSource.",
    },
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path of the API. `respond(request, query)` answers a GET; its docstring describes the path.

    The caller's credential needs `scope`; None: any valid one will do.
    `returns` is the message of the response; None stands for a stream of server-sent events. Without a query, the
    parameters of a URL are ignored.
    """

    path: str
    respond: Callable[..., Awaitable[ASGIApp]]
    scope: Scope | None
    returns: type[Message] | None
    query: type[Query] | None = None

    def pattern(self) -> re.Pattern[str]:
        """Return the pattern of the paths that the endpoint answers."""
        return compile_path(self.path)[0]

    def route(self, quotas: Quotas, audit: Audit) -> Route:
        """Return the route, which also answers HEAD."""

        async def endpoint(request: Request) -> Any:
            caller = CALLER.get()
            origin = source_of(request.scope, f"{request.method} {self.path}")
            resources = [f"{name.removesuffix('_id')}/{value[:128]}" for name, value in request.path_params.items()]

            def note(error: ServiceError) -> None:
                if error.reason in DENIALS:
                    audit.denied(origin, caller, error, resources)

            try:
                if self.scope is not None:
                    caller.require(self.scope)
                with quotas.using(Quota.CALLS, caller):  # a stream counts as one, too, from its response on
                    if self.query is None:
                        response = await self.respond(request)
                    else:
                        query = self.query.parse(request.query_params)
                        if getattr(query, "take_over", False):
                            audit.done(origin, caller, resources)
                        response = await self.respond(request, query)
            except ServiceError as error:
                note(error)
                raise
            if isinstance(response, EventStreamResponse):
                response.on_error = note
            return response

        return Route(self.path, endpoint)


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the endpoints."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lavant",
            "version": version("lavant"),
            "description": "Runs, events, scores and rules, read-only. Streams are server-sent events, which resume "
            "with Last-Event-ID. Messages have protobuf's JSON form with the names of the contract's fields.",
        },
        "paths": {endpoint.path: {"get": _operation(endpoint, schemas)} for endpoint in endpoints},
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SECURITY_SCHEMES},
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    summary, _, description = (inspect.getdoc(endpoint.respond) or "").partition("\n\n")
    if endpoint.returns is None:
        content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": _message(endpoint.returns.DESCRIPTOR, schemas)}}
    in_path = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    error = {"application/json": {"schema": {"$ref": f"{_REFERENCE}Error"}}}
    return {
        "operationId": getattr(endpoint.respond, "__name__", endpoint.path),
        "summary": summary.rstrip("."),
        "description": " ".join(description.split()),
        "security": _STREAM_SECURITY if endpoint.returns is None else _SECURITY,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path),
            *_parameters(endpoint.query),
        ],
        "responses": {
            "200": {"description": "OK", "content": content},
            "default": {"description": "The request failed.", "content": error},
        },
    }


def _parameters(query: type[Query] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    found = []
    for name, schema in query.model_json_schema()["properties"].items():
        described = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
        options = [option for option in described.pop("anyOf", ()) if option != {"type": "null"}]
        found.append(
            {
                "name": name,
                "in": "query",
                "description": schema["description"],
                "schema": {**described, **(options[0] if options else {})},
            }
        )
    return found


def _message(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the schema of a message, which is added to the schemas with all that it holds."""
    if descriptor.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[descriptor.full_name]
    if descriptor.name not in schemas:
        schemas[descriptor.name] = schema = {"type": "object", "properties": {}}
        schema["properties"] = {field.name: _field(field, schemas) for field in descriptor.fields}
    return {"$ref": f"{_REFERENCE}{descriptor.name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(entry.fields_by_name["value"], schemas)}
    value = _value(field, schemas)
    return {"type": "array", "items": value} if field.is_repeated else value


def _value(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _message(field.message_type, schemas)
    if field.enum_type is not None:
        return _enum(field.enum_type, schemas)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    return _SCALARS[field.cpp_type]


def _enum(descriptor: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    # No list of values: servers that are newer than the document may send others.
    schemas.setdefault(descriptor.name, {"type": "string", "examples": [value.name for value in descriptor.values]})
    return {"$ref": f"{_REFERENCE}{descriptor.name}"}
