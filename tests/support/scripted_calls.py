"""Functions of a test as methods of a service: for what a good server never does."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass


class ScriptedService:
    """Answers calls by functions of request and context, named as the methods; counts the calls."""

    def __init__(self, service: ServiceDescriptor, **methods: Callable[[Any, Any], Any]) -> None:
        self.requests: list[Any] = []
        self._service = service
        self._methods = methods

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        """Return the handlers of its methods."""
        served = {name: self._handler(name, function) for name, function in self._methods.items()}
        yield grpc.method_handlers_generic_handler(self._service.full_name, served)

    def _handler(self, name: str, function: Callable[[Any, Any], Any]) -> "grpc.RpcMethodHandler[Any, Any]":
        method = self._service.methods_by_name[name]
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        def noted(data: bytes) -> Any:
            self.requests.append(request.FromString(data))
            return self.requests[-1]

        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(function, noted, response.SerializeToString)
