"""Reflection: the services of the server, described to tools such as grpcurl."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

_V1 = "grpc.reflection.v1.ServerReflection"


def add_reflection(names: Sequence[str], server: aio.Server) -> None:
    """Serve the descriptions of some services, under the names of both versions of the reflection service.

    The versions have the same messages. Tools ask for v1 first, and newer ones for no other.
    """
    servicer = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME), pool=_Descriptors())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_V1, {"ServerReflectionInfo": handler}),))


class _Descriptors:
    """The default pool of descriptors, in which methods are found by their full names as well.

    The pool of protobuf finds the file of a service, not of its methods, by which grpcurl and ghz ask.
    """

    _pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802
        """Return the file that defines a name. Raises KeyError if none does."""
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            return self._pool.FindMethodByName(name).containing_service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)
