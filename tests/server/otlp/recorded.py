"""What libraries sent, as `fixtures/README.md` says: OTLP as JSON."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from lavant.server.otlp.attributes import values_of

_FIXTURES = Path(__file__).parent / "fixtures"
_IDS = {"traceId", "spanId", "parentSpanId"}


class RecordedSpan(NamedTuple):
    """A span, with what it shares with others."""

    span: Span
    resource: Mapping[str, Any]
    scope: str


class RecordedLog(NamedTuple):
    """A log record, with what it shares with others."""

    record: LogRecord
    resource: Mapping[str, Any]
    scope: str


def recorded_spans(name: str) -> Iterator[RecordedSpan]:
    """Yield the spans of a fixture, in the order in which they were sent."""
    for group in ParseDict(_fixture(name), TracesData()).resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield RecordedSpan(span, values_of(group.resource.attributes), scope.scope.name)


def recorded_logs(name: str) -> Iterator[RecordedLog]:
    """Yield the log records of a fixture."""
    for group in ParseDict(_fixture(name), LogsData()).resource_logs:
        for scope in group.scope_logs:
            for record in scope.log_records:
                yield RecordedLog(record, values_of(group.resource.attributes), scope.scope.name)


def _fixture(name: str) -> Any:
    return _with_ids(json.loads((_FIXTURES / f"{name}.json").read_text(encoding="utf-8")))


def _with_ids(value: Any) -> Any:
    """Return OTLP's JSON as protobuf's, which has ids in Base64."""
    if isinstance(value, dict):
        return {
            key: b64encode(bytes.fromhex(inner)).decode() if key in _IDS else _with_ids(inner)
            for key, inner in value.items()
        }
    return [_with_ids(item) for item in value] if isinstance(value, list) else value
