"""Server-sent events: a run's stream, passed on to a browser by a web application.

The frames are those of lavant's own HTTP stream: `event:` is the event's type, `data:` its JSON in the contract's
mapping, `id:` the resume token of exactly that event, which EventSource sends back as `Last-Event-ID`.

Example:
    @app.get("/chat/{run_id}/events")  # FastAPI; Starlette alike
    async def events(run_id: str, request: Request):
        return await sse.response(client.runs.stream(run_id, consumer="ui"), request)
"""

from typing import TYPE_CHECKING

from lavant.client._evaluations import EvaluationEvent
from lavant.client._event_json import evaluation_json
from lavant.client._events import Event
from lavant.contract.json_text import quote, to_json
from lavant.v1.run_pb2 import Run

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from lavant.client._async.evaluation_stream import AsyncEvaluationStream
    from lavant.client._async.stream import AsyncRunStream

__all__ = ["encode", "encode_comment", "encode_end", "encode_opened", "response"]

HEARTBEAT_INTERVAL = 15.0
OPEN_TIMEOUT = 10.0


def encode(event: Event | EvaluationEvent, *, id: str | None = None) -> str:  # noqa: A002
    r"""Return an event as one frame, which ends in an empty line.

    `id` is where a reader resumes after this event: by default the event's own resume token; without one, as of
    evaluations' events and of events that no stream gave, the frame has no id. Nothing in an event can end a line:
    JSON escapes what could. Raises ValueError for an `id` that holds a line break or a NUL.

    Example:
        async for event in client.runs.stream(run_id):
            frame = sse.encode(event)
            assert frame.startswith(f"event: {event.type}\ndata: {{")
    """
    if isinstance(event, EvaluationEvent):
        return _frame(event.type, evaluation_json(event), id or "")
    return _frame(event.type, to_json(event.proto), event.resume_token if id is None else id)


def encode_opened(run: Run | None, *, id: str = "") -> str:  # noqa: A002
    """Return the first frame of a stream: the run as it stands, in the contract's form, if it exists."""
    return _frame("opened", "{}" if run is None else f'{{"run": {to_json(run)}}}', id)


def encode_end(reason: str, *, reconnect: bool, message: str = "", id: str = "") -> str:  # noqa: A002
    """Return the last frame of a stream: why nothing follows, and whether it is any use to connect again."""
    told = f', "message": {quote(message)}' if message else ""
    return _frame("end", f'{{"reason": {quote(reason)}, "reconnect": {str(reconnect).lower()}{told}}}', id)


def encode_comment(text: str) -> str:
    """Return a frame that no application sees. It keeps a connection alive."""
    return "".join(f": {line}\n" for line in text.splitlines()) + "\n"


async def response(
    stream: "AsyncRunStream | AsyncEvaluationStream",
    request: "Request",
    *,
    heartbeat_interval: float = HEARTBEAT_INTERVAL,
    open_timeout: float = OPEN_TIMEOUT,
) -> "Response":
    """Return a Starlette response that sends a stream to a browser. Needs `pip install 'lavant[sse]'`.

    Give it a stream that nothing was read of: it resumes by the request's `Last-Event-ID` header, or the
    `last_event_id` parameter, at the very next event. A reconnect of a named consumer takes its own place over at once.

    The stream is open before the first byte is sent, so what the server refuses is a status: 400 for a bad argument or
    token, 404 for a run that does not exist, 409 with Retry-After for a consumer that is busy, 410 for a token of a
    store that was restored, 429 for too many streams, 503 with Retry-After for a server that is not reached within
    `open_timeout` seconds. A reader that has read all gets 204, after which EventSource stops.

    Once it is open, frames come as `encode` writes them, between an `opened` and an `end` frame; comments are sent
    after `heartbeat_interval` seconds of silence. The stream is closed when the browser leaves; the run goes on.

    Example:
        async def events(request: Request) -> Response:
            stream = client.runs.stream(request.path_params["run_id"], consumer="ui", wait_for_run=True)
            return await sse.response(stream, request)
    """
    from lavant.client.integrations._extras import extra

    with extra("sse"):
        from lavant.client.integrations._event_stream_response import open_response

    return await open_response(stream, request, heartbeat_interval=heartbeat_interval, open_timeout=open_timeout)


def _frame(name: str, data: str, resume_token: str) -> str:
    if any(character in resume_token for character in "\r\n\0"):
        raise ValueError(f"id must be one line without NUL, not {resume_token!r}")
    return f"event: {name}\ndata: {data}\n" + (f"id: {resume_token}\n\n" if resume_token else "\n")
