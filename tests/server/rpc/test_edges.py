"""Numbers at the edges of their ranges: each is served or refused, and none of them fails inside the server."""

from collections.abc import Iterator
from math import inf, nextafter
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from lavant.v1 import bounds_pb2, score_service_pb2
from server.rpc.raw import METHODS
from support.calls import append, create
from support.events import run_started
from support.scores import record, score
from support.server import Server

ALL = METHODS | {
    f"/{service.full_name}/{method.name}": method
    for service in score_service_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
DEFECTS = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED"}
LATE = "Internal error from Core"  # gRPC's own status of a call whose deadline has passed before it is read
INTEGERS = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
LEVELS = 4
NAMES = {"run_id": "run", "rule_id": "rule", "consumer_id": "ui", "worker_id": "w", "session_id": "s", "score_id": "s"}
Path = tuple[str, ...]


def edges(field: FieldDescriptor) -> list[Any]:
    """Values at and beyond the bounds of a number, and of its type."""
    bounds = field.GetOptions().Extensions[bounds_pb2.bounds]
    bounds = bounds.each if field.is_repeated else bounds
    given = [getattr(bounds, name) for name in ("min", "max", "above", "below") if bounds.HasField(name)]
    if (bits := INTEGERS.get(field.cpp_type)) is not None:
        limits = (-(2**bits), 2**bits - 1)
        beside = [int(value) + step for value in given for step in (-1, 0, 1)]
        return [value for value in {*beside, *limits, -1, 0, 1} if limits[0] <= value <= limits[1]]
    near = [nextafter(value, to) for value in given for to in (-inf, inf)]
    return [*given, *near, 0.0, -0.0, 5e-324, 1.7e308, -1.7e308, inf, -inf, float("nan")]


def numbers(message: Descriptor, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every number in a request, with its edges: durations and times are numbers of seconds and nanoseconds."""
    for field in message.fields:
        here = (*path, field.name)
        kind = field.message_type
        if kind is not None and not kind.GetOptions().map_entry and len(here) <= LEVELS:
            yield from numbers(kind, here)
        elif kind is None and (field.cpp_type in INTEGERS or field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE):
            yield from ((here, value) for value in edges(field))


def request_with(message: Descriptor, path: Path, value: Any) -> Message:
    """A request that is right as far as possible, and has the value in one of its fields."""
    request: Any = GetMessageClass(message)()
    fill(request)
    at = request
    for name in path[:-1]:
        at = getattr(at, name)
        if isinstance(at, Message):
            at.SetInParent()
            fill(at)
        else:
            at = at[0] if len(at) else at.add()
            fill(at)
    if at.DESCRIPTOR.fields_by_name[path[-1]].is_repeated:
        getattr(at, path[-1]).append(value)
    else:
        setattr(at, path[-1], value)
    return request  # type: ignore[no-any-return]


def fill(message: Any) -> None:
    """Set what is required."""
    for field in message.DESCRIPTOR.fields:
        if field.name in NAMES:
            setattr(message, field.name, NAMES[field.name])
        elif field.name == "name" and field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            message.name = "quality"
        elif field.message_type is not None and field.GetOptions().Extensions[bounds_pb2.bounds].required:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name))


async def send(channel: aio.Channel, path: str, data: bytes) -> None:
    """Send a request, and wait for the first answer for a moment: some calls wait for long."""
    method: Any = channel.stream_stream(path)
    # An iterator, as writing to a call whose deadline has passed raises no status.
    call = method(iter([data]), timeout=0.3)
    try:
        await call.read()
        if not ALL[path].server_streaming:
            await call.read()
    finally:
        call.cancel()


@pytest.mark.parametrize("path", sorted(ALL))
async def test_a_number_at_an_edge_never_fails_inside_the_server(server: Server, path: str) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    for number in range(3):
        await record(server.stubs, f"score-{number}", score(value=number / 3))
    wrong = []
    for where, value in numbers(ALL[path].input_type):
        request = request_with(ALL[path].input_type, where, value)
        try:
            await send(server.stubs.channel, path, request.SerializeToString())
        except aio.AioRpcError as error:
            if error.code().name in DEFECTS and error.details() != LATE:
                wrong.append((".".join(where), value, error.code().name, error.details()))
    assert not wrong
