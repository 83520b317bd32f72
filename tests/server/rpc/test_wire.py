"""What comes over the wire and is no request: nothing of it gets an exception's text back."""

from typing import Any

import grpc
import pytest
from grpc import StatusCode, aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavant.v1.event_service_pb2 import ProducerBatch, PublishEventsRequest, PublishEventsResponse
from server.rpc.raw import METHODS, nested, send, text_field, varint_field
from support.calls import create
from support.server import Server, Stubs
from support.status import Refusal, refused, rejection

RUN_PATHS = [path for path, method in METHODS.items() if "run_id" in method.input_type.fields_by_name]
FIRST_FIELDS = {
    "CreateRun": "settings",
    "AppendEvents": "batch.run_id",
    "CreateRule": "rule",
    "UpdateRule": "rule",
}
REFUSALS = {"INVALID_FIELD", "RUN_NOT_FOUND", "RESUME_TOKEN_INVALID", "RULE_NOT_FOUND", "RULE_EXISTS", "RULE_CHANGED"}
NOT_MESSAGES = {
    "noise": b"\xff" * 20,
    "cut short": b"\x0a\x50abc",
    "field number 0": b"\x02\x00",
    "endless varint": b"\x08" + b"\xff" * 11,
    "wrong wire type at the end": b"\x0f",
    "400 levels deep": nested(400),
    "10,000 levels deep": nested(10_000),
    "unclosed group": b"\x0b" * 50,
}


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("data", NOT_MESSAGES.values(), ids=NOT_MESSAGES)
async def test_bytes_that_are_no_message(server: Server, path: str, data: bytes) -> None:
    with refused("INVALID_FIELD", "request") as refusal:
        await send(server.stubs, path, data)
    assert METHODS[path].input_type.full_name in refusal.status.message


@pytest.mark.parametrize("path", RUN_PATHS)
async def test_text_that_is_not_utf8(server: Server, path: str) -> None:
    with refused("INVALID_FIELD", "request"):
        await send(server.stubs, path, text_field(1, b"\xc3\x28"))


async def test_bad_text_within_an_event(server: Server) -> None:
    event = text_field(2, b"\xed\xa0\x80")  # event_id: a lone surrogate
    batch = text_field(1, b"run") + text_field(2, b"p") + text_field(5, event)
    for path in ("/lavant.v1.EventService/AppendEvents", "/lavant.v1.EventService/PublishEvents"):
        with refused("INVALID_FIELD", "request"):
            await send(server.stubs, path, text_field(1, batch))


@pytest.mark.parametrize("path", METHODS)
async def test_an_empty_message_is_one_without_fields(server: Server, path: str) -> None:
    name = path.rpartition("/")[2]
    if name in {"ListRuns", "WatchRuns", "ListRules"}:
        await send(server.stubs, path, b"")
    elif name == "PublishEvents":
        answered = await send(server.stubs, path, PublishEventsRequest(batches=[ProducerBatch()]).SerializeToString())
        assert isinstance(answered, bytes)
        (answer,) = PublishEventsResponse.FromString(answered).answers
        assert rejection(answer.rejection, "INVALID_FIELD").path == "batch.run_id"
    else:
        expected = "rule_id" if "RunService" not in path and "EventService" not in path else "run_id"
        with refused("INVALID_FIELD", FIRST_FIELDS.get(name, expected)):
            await send(server.stubs, path, b"")


async def test_unknown_fields_are_ignored(server: Server) -> None:
    await create(server.stubs)
    request = text_field(1, b"run") + varint_field(900, -1) + text_field(901, b"\xff")
    assert await send(server.stubs, "/lavant.v1.RunService/GetRun", request)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
@pytest.mark.parametrize("path", METHODS)
async def test_random_bytes(server: Server, path: str, data: bytes) -> None:
    await answered_or_refused(server.stubs, path, data)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(
        st.one_of(
            st.builds(varint_field, st.integers(1, 16), st.integers(-(2**63), 2**63 - 1)),
            st.builds(text_field, st.integers(1, 16), st.binary(max_size=40)),
            st.builds(text_field, st.integers(1, 16), st.text(max_size=40).map(str.encode)),
        ),
        max_size=6,
    )
)
@pytest.mark.parametrize("path", METHODS)
async def test_random_fields(server: Server, path: str, fields: list[bytes]) -> None:
    await answered_or_refused(server.stubs, path, b"".join(fields))


async def answered_or_refused(stubs: Stubs, path: str, data: bytes) -> None:
    """Fail if a request brings the server out of step, or the answer shows its inside."""
    if path.endswith("WaitRun"):
        data += text_field(2, b"")  # a timeout of nothing
    refusal = Refusal()
    try:
        await send(stubs, path, data)
    except aio.AioRpcError as error:
        refusal.read(error)
        refusal.check(refusal.reason)
        assert refusal.reason in REFUSALS


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_over_the_limit(server: Server, path: str, compression: grpc.Compression) -> None:
    """Compressed, the message is a few KB on the wire."""
    with pytest.raises(aio.AioRpcError) as caught:
        await send(server.stubs, path, text_field(1, bytes(8 << 20)), compression=compression)
    refusal = Refusal()
    refusal.read(caught.value)
    assert refusal.code == StatusCode.RESOURCE_EXHAUSTED
    refusal.check_discretion()
    await create(server.stubs)


@pytest.mark.parametrize("path", ["/lavant.v1.RunService/Nope", "/lavant.v2.RunService/GetRun", "/", "/x/../y"])
async def test_an_unknown_method(server: Server, path: str) -> None:
    unary: Any = server.stubs.channel.unary_unary(path)
    with pytest.raises(aio.AioRpcError) as caught:
        await unary(b"", timeout=20)
    assert caught.value.code() == StatusCode.UNIMPLEMENTED
