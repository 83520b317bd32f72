"""Calls with whatever bytes as request."""

from collections.abc import Sequence
from typing import Any

from lavant.v1 import evaluation_service_pb2, event_service_pb2, rule_service_pb2, run_service_pb2
from support.server import Stubs

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (run_service_pb2, event_service_pb2, rule_service_pb2, evaluation_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
PATIENCE = 20.0


async def send(stubs: Stubs, path: str, data: bytes, **options: Any) -> object:
    """Send one message to a method, and read one answer; raises the status if there is none."""
    method = METHODS[path]
    if not method.server_streaming:
        unary: Any = stubs.channel.unary_unary(path)
        return await unary(data, timeout=PATIENCE, **options)
    call: Any
    if method.client_streaming:
        call = stubs.channel.stream_stream(path)(timeout=PATIENCE, **options)
        await call.write(data)
        await call.done_writing()
    else:
        stream: Any = stubs.channel.unary_stream(path)
        call = stream(data, timeout=PATIENCE, **options)
    try:
        return await call.read()
    finally:
        call.cancel()


def nested(levels: int) -> bytes:
    """A message of unknown groups within each other."""
    return b"\x0b" * levels + b"\x0c" * levels


def varint_field(number: int, value: int) -> bytes:
    """A field of a message, as a number on the wire."""
    return encoded(number << 3) + encoded(value & (2**64 - 1))


def text_field(number: int, value: bytes) -> bytes:
    """A field of a message, as text or a message on the wire."""
    return encoded(number << 3 | 2) + encoded(len(value)) + value


def encoded(value: int) -> bytes:
    """A number as protobuf's varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def paths(*, without: Sequence[str] = ()) -> list[str]:
    """All methods' paths."""
    return [path for path in METHODS if path.rpartition("/")[2] not in without]
