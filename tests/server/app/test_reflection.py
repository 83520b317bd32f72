"""Reflection, as tools such as grpcurl use it: by the names of services, methods and messages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode, aio
from grpc_reflection.v1alpha import reflection_pb2

from lavant.server.app.lifecycle import SERVICES
from support.every_call import RPCS
from support.server import Server, serving

ALPHA, V1 = "grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"
Request = reflection_pb2.ServerReflectionRequest


async def ask(server: Server, *requests: Any, service: str = ALPHA) -> list[Any]:
    """Make one call of reflection; return its answers. Raises AioRpcError."""
    method: Any = server.stubs.channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [answer async for answer in method(iter(requests), timeout=20)]


async def files_of(server: Server, symbols: Sequence[str]) -> list[list[str]]:
    """Return the names of the files that describe each symbol; the first has it, and no error is among them."""
    answers = await ask(server, *(Request(file_containing_symbol=symbol) for symbol in symbols))
    assert [answer.error_response.error_message for answer in answers] == [""] * len(symbols)
    return [
        [FileDescriptorProto.FromString(file).name for file in answer.file_descriptor_response.file_descriptor_proto]
        for answer in answers
    ]


@pytest.mark.parametrize("service", [ALPHA, V1])
async def test_reflection_lists_the_services(server: Server, service: str) -> None:
    (answer,) = await ask(server, Request(list_services=""), service=service)
    listed = {one.name for one in answer.list_services_response.service}
    assert listed == {*SERVICES, "grpc.health.v1.Health", ALPHA}
    assert all(await files_of(server, sorted(listed)))


async def test_reflection_describes_every_method(server: Server) -> None:
    methods = [path.strip("/").replace("/", ".") for _, path in RPCS.values()]
    found = await files_of(server, methods)
    assert {files[0] for files in found} == {files[0] for files in await files_of(server, SERVICES)}
    assert all("google/protobuf/timestamp.proto" in files for files in found)  # a file comes with its imports


@pytest.mark.parametrize("symbol", ["", "lavant.v1.RunService.Nothing", "lavant.v1.Nothing.GetRun", "GetRun", ".", "é"])
async def test_reflection_of_an_unknown_name_is_not_found(server: Server, symbol: str) -> None:
    answers = await ask(server, Request(file_containing_symbol=symbol), Request(list_services=""))
    assert answers[0].error_response.error_code == StatusCode.NOT_FOUND.value[0]
    assert answers[1].HasField("list_services_response")  # the call continues


async def test_reflection_describes_files_and_messages(server: Server) -> None:
    assert (await files_of(server, ["lavant.v1.Run.run_id", "lavant.v1.RUN_STATE_SUCCEEDED"]))[0][0] == (
        "lavant/v1/run.proto"
    )
    (answer,) = await ask(server, Request(file_by_filename="lavant/v1/run.proto"))
    assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    ("settings", "is_served"),
    [
        ({}, True),
        ({"reflection": False}, False),
        ({"listen": "0.0.0.0:0", "insecure": True}, False),
        ({"listen": "0.0.0.0:0", "insecure": True, "reflection": True}, True),
    ],
)
async def test_reflection_is_served_on_loopback_or_when_asked_for(
    tmp_path: Path, settings: dict[str, Any], is_served: bool
) -> None:
    async with serving(tmp_path, **settings) as server:
        for service in (ALPHA, V1):
            if is_served:
                assert await ask(server, Request(list_services=""), service=service)
                continue
            with pytest.raises(aio.AioRpcError) as caught:
                await ask(server, Request(list_services=""), service=service)
            assert caught.value.code() == StatusCode.UNIMPLEMENTED
