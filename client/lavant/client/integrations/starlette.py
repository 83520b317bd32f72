"""A stream as a Starlette response."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lavant.client import errors
from lavant.client._async.api.evaluations import AsyncEvaluationStream
from lavant.client._async.run_stream import AsyncRunStream
from lavant.client._reading.plan import LastEventId
from lavant.client.sse import encode, encode_comment, encode_end, encode_opened

RETRY_MS = 1_000
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
# The status of each error. The message of the first kind, an error of the request, is sent to the browser; that of all
# others would show it the inside of the application.
_REFUSALS: dict[type[errors.LavantError], int] = {
    errors.InvalidField: 400,
    errors.ResumeTokenInvalid: 400,
    errors.RunNotFound: 404,
    errors.ConsumerBusy: 409,
    errors.StaleAttempt: 409,
    errors.StreamDisplaced: 409,
    errors.StoreEpochChanged: 410,
}
_FAILURES: dict[type[errors.LavantError], int] = {
    errors.QuotaExceeded: 429,
    errors.SlowConsumer: 503,
    errors.StreamCut: 503,
    errors.Unavailable: 503,
    errors.IdleTimeout: 503,
    errors.StreamTimeout: 503,
}
_RETRY_AFTER = 1.0
# Ends after which a new connection is of no use: another reader has the stream, or there is nothing to read.
_FINAL = (errors.StreamDisplaced, errors.RunNotFound, errors.DataLoss, errors.IdleTimeout, errors.StreamTimeout)


async def open_response(
    stream: AsyncRunStream | AsyncEvaluationStream,
    request: Request,
    *,
    heartbeat_interval: float,
    open_timeout: float,
) -> Response:
    """Open a stream where the request's reader stopped; return its response, or that of the error."""
    run_stream = stream.run_stream if isinstance(stream, AsyncEvaluationStream) else stream
    if not isinstance(run_stream, AsyncRunStream):
        raise TypeError(f"needs a stream of AsyncClient, as client.runs.stream(run_id) is, not {type(stream).__name__}")
    try:
        last = LastEventId.parse(
            request.headers.get("last-event-id") or request.query_params.get("last_event_id") or ""
        )
        if last.is_final:
            return await _closed(run_stream, Response(status_code=204, headers=_HEADERS))
        async with asyncio.timeout(open_timeout):
            await run_stream.open(last)
            if not await _has_more(run_stream):
                return await _closed(run_stream, Response(status_code=204, headers=_HEADERS))
    except TimeoutError as late:
        failure = late if isinstance(late, errors.LavantError) else errors.Unavailable("the server did not answer")
        return await _closed(run_stream, _refused(failure))
    except errors.LavantError as error:
        return await _closed(run_stream, _refused(error))
    except BaseException:
        await run_stream.aclose()
        raise
    return EventStreamResponse(stream, run_stream, heartbeat_interval)


class EventStreamResponse(Response):
    """The response that sends an open stream, until the stream ends or the browser disconnects."""

    media_type = "text/event-stream"

    def __init__(
        self, stream: AsyncRunStream | AsyncEvaluationStream, run_stream: AsyncRunStream, heartbeat_interval: float
    ) -> None:
        super().__init__(headers=_HEADERS, media_type=self.media_type)
        # Its length is not known before its end.
        del self.headers["content-length"]
        self._stream = stream
        self._run_stream = run_stream
        self._heartbeat_interval = heartbeat_interval
        self._writing = asyncio.Lock()
        self._is_silent = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, and close it however this ends."""
        if scope["method"] == "HEAD":
            await self._run_stream.aclose()
            await self._start(send)
            await send({"type": "http.response.body", "body": b""})
            return
        tasks = [
            asyncio.create_task(work) for work in (self._deliver(send), self._keep_alive(send), _disconnected(receive))
        ]
        delivering, _, leaving = tasks
        try:
            await asyncio.wait((delivering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Before anything is waited for: within a cancelled scope, the next wait may be the last.
            for task in tasks:
                task.cancel()
            await self._run_stream.aclose()
            await asyncio.gather(*tasks, return_exceptions=True)
        if delivering.done() and not delivering.cancelled() and (error := delivering.exception()):
            raise error
        if self.background is not None:
            await self.background()

    async def _deliver(self, send: Send) -> None:
        with suppress(OSError):  # as some servers report that the browser has disconnected
            await self._send_all(send)

    async def _send_all(self, send: Send) -> None:
        async with self._writing:
            await self._start(send)
        opened = encode_opened(self._run_stream.run_proto, id=self._run_stream.last_event_id)
        await self._write(send, f"retry: {RETRY_MS}\n{opened}")
        async for frame in self._frames():
            await self._write(send, frame)
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _frames(self) -> AsyncIterator[str]:
        stream, run_stream = self._stream, self._run_stream
        try:
            async for event in stream:
                # Of several made from one event of the run, only the last has an id: after a cut all are sent again.
                is_last = not isinstance(stream, AsyncEvaluationStream) or stream.is_between_events
                yield encode(event, id=run_stream.last_event_id if is_last else "")
        except errors.LavantError as error:
            final = isinstance(error, _FINAL)
            reason, message = _name(error), str(error) if type(error) in _REFUSALS else ""
            yield encode_end(reason, reconnect=not final, message=message, id=run_stream.last_event_id + "~end" * final)
        else:
            reason = "RUN_FINISHED" if run_stream.has_read_end else "HEAD_REACHED"
            yield encode_end(reason, reconnect=False, id=run_stream.last_event_id + "~end")

    async def _write(self, send: Send, text: str) -> None:
        async with self._writing:
            self._is_silent = False
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            self._is_silent = True
            await asyncio.sleep(self._heartbeat_interval)
            if self._is_silent:
                await self._write(send, encode_comment("heartbeat"))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _has_more(stream: AsyncRunStream) -> bool:
    """Return whether more events can follow, now or later: not if the run has ended and all of it was read."""
    run = stream.run
    return run is None or not run.has_ended or await stream.has_next()


async def _closed(stream: AsyncRunStream, response: Response) -> Response:
    await stream.aclose()
    return response


def _refused(error: errors.LavantError) -> Response:
    status = next((status for kind, status in (_REFUSALS | _FAILURES).items() if isinstance(error, kind)), 500)
    body: dict[str, object] = {"reason": _name(error), "message": "the run cannot be read now"}
    if type(error) in _REFUSALS:
        body["message"] = error.message
    headers = dict(_HEADERS)
    retry_after = error.retry_after if error.retry_after is not None else _RETRY_AFTER if status == 503 else None
    if retry_after is not None:
        body["retry_after"] = retry_after
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return Response(json.dumps({"error": body}), status, headers, media_type="application/json")


def _name(error: errors.LavantError) -> str:
    if error.reason:
        return error.reason
    return "IDLE" if isinstance(error, errors.IdleTimeout) else "DEADLINE" if isinstance(error, TimeoutError) else "CUT"
