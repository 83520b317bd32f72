"""Calls of HTTP's that are answered by one message, as JSON."""

from google.protobuf.message import Message
from starlette.responses import Response

from lavant.contract.json_text import to_json
from lavant.server.http.streams import HTTPCaller

TENANT = "default"


def caller() -> HTTPCaller:
    """Whoever asks for no stream."""
    return HTTPCaller(TENANT, _write_nothing)


def answer(message: Message) -> Response:
    """Tell it."""
    return Response(to_json(message), media_type="application/json")


async def _write_nothing(_: bytes) -> None:
    """A call that answers with one message streams nothing."""
