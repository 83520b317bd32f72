"""The services of OTLP over gRPC."""

from google.protobuf.message import Message

from lavant.server.auth.principal import Scope
from lavant.server.otlp.exports import Export, Exports
from lavant.server.rpc.dispatch import Call, Service, unary


def otlp_services(exports: Exports) -> list[Service]:
    """Return the services, with the scopes that their methods need."""
    return [_service(export) for export in exports.methods()]


def _service(export: Export) -> Service:
    async def answer(request: Message, call: Call) -> Message:
        return await export.answer(request, call.principal)

    return Service(export.service, {"Export": unary(export.request_type, answer, Scope.RUNS_PUBLISH)})
