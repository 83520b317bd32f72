"""Server-sent events: pass the stream of a run on to a browser.

The frames are those of lavant's HTTP stream: `event:` is the event's type, `data:` its JSON as the contract maps it,
and `id:` the resume token of the event, which EventSource sends back as `Last-Event-ID`.

Example:
    @app.get("/chat/{run_id}/events")  # FastAPI; Starlette alike
    async def events(run_id: str, request: Request):
        return await sse.response(client.runs.stream(run_id, consumer="ui"), request)
"""

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from lavant.client.evaluations import Evaluation, EvaluationEvent, Row
from lavant.client.events import Event
from lavant.contract.json_text import quote, to_json
from lavant.v1.run_pb2 import Run

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from lavant.client._async.api.evaluations import AsyncEvaluationStream
    from lavant.client._async.run_stream import AsyncRunStream


def evaluation_json(event: EvaluationEvent) -> str:
    """Return the event of an evaluation as one line of ASCII JSON. Unknown values are left out."""
    return json.dumps(_known(event, exclude={"type"}))


def _known(model: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    found = {}
    for name, value in model:
        if name not in (exclude or ()) and (plain := _plain(value)) not in (None, "", {}):
            found[name] = plain
    return found


def _plain(value: object) -> Any:
    if isinstance(value, Row):
        score = {} if value.score is None else {"score": value.score}
        return _known(value) | score
    if isinstance(value, Evaluation):
        return _known(value, exclude={"id", "rows", "comparison", "error"})
    if isinstance(value, BaseModel):
        return _known(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, timedelta_mode="float", inf_nan_mode="null")


__all__ = ["encode", "encode_comment", "encode_end", "encode_opened", "response"]

HEARTBEAT_INTERVAL = 15.0
OPEN_TIMEOUT = 10.0


def encode(event: Event | EvaluationEvent, *, id: str | None = None) -> str:  # noqa: A002
    r"""Return an event as one frame, including its empty last line.

    `id` is the position after this event; default is the event's resume token. A frame has no id without one, as for
    events of evaluations and events that were not read from a stream. Raises ValueError for an `id` with a line break
    or NUL.

    Example:
        async for event in client.runs.stream(run_id):
            frame = sse.encode(event)
            assert frame.startswith(f"event: {event.type}\ndata: {{")
    """
    if isinstance(event, EvaluationEvent):
        return _frame(event.type, evaluation_json(event), id or "")
    return _frame(event.type, to_json(event.proto), event.resume_token if id is None else id)


def encode_opened(run: Run | None, *, id: str = "") -> str:  # noqa: A002
    """Return the first frame of a stream: the run in the contract's form, or nothing if it does not exist yet."""
    return _frame("opened", "{}" if run is None else f'{{"run": {to_json(run)}}}', id)


def encode_end(reason: str, *, reconnect: bool, message: str = "", id: str = "") -> str:  # noqa: A002
    """Return the last frame of a stream: why it ended, and whether to reconnect."""
    detail = f', "message": {quote(message)}' if message else ""
    return _frame("end", f'{{"reason": {quote(reason)}, "reconnect": {str(reconnect).lower()}{detail}}}', id)


def encode_comment(text: str) -> str:
    """Return a frame that keeps a connection alive and that applications do not see."""
    return "".join(f": {line}\n" for line in text.splitlines()) + "\n"


async def response(
    stream: "AsyncRunStream | AsyncEvaluationStream",
    request: "Request",
    *,
    heartbeat_interval: float = HEARTBEAT_INTERVAL,
    open_timeout: float = OPEN_TIMEOUT,
) -> "Response":
    """Return a Starlette response that sends a stream to a browser. Needs `pip install 'lavant[sse]'`.

    Pass a stream that was not read: it resumes after the position in the request's `Last-Event-ID` header, or in its
    `last_event_id` parameter. A reconnect of a named consumer acquires its lease at once.

    The stream is opened before the response begins, so refusals have a status: 400 for an invalid argument or token,
    404 for a run that does not exist, 409 with Retry-After for a busy consumer, 410 for a token from before the store
    was restored, 429 for too many streams, 503 with Retry-After if the server is not reached within `open_timeout`
    seconds. A reader that has read everything gets 204, after which EventSource stops.

    The frames are an `opened` frame, events as `encode` writes them, and an `end` frame; after `heartbeat_interval`
    seconds of silence a comment is sent. The stream is closed when the browser disconnects; the run continues.

    Example:
        async def events(request: Request) -> Response:
            stream = client.runs.stream(request.path_params["run_id"], consumer="ui", wait_for_run=True)
            return await sse.response(stream, request)
    """
    from lavant.client.integrations.extras import extra

    with extra("sse"):
        from lavant.client.integrations.starlette import open_response

    return await open_response(stream, request, heartbeat_interval=heartbeat_interval, open_timeout=open_timeout)


def _frame(name: str, data: str, resume_token: str) -> str:
    if any(character in resume_token for character in "\r\n\0"):
        raise ValueError(f"id must be one line without NUL, not {resume_token!r}")
    return f"event: {name}\ndata: {data}\n" + (f"id: {resume_token}\n\n" if resume_token else "\n")
