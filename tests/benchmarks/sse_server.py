"""The usual home-made server-sent events: Starlette, a list in memory per run, an event after the other; no disk."""

import socket
from collections import defaultdict
from collections.abc import AsyncIterator

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

RUNS: dict[str, list[str]] = defaultdict(list)


async def append(request: Request) -> Response:
    """Take a list of events."""
    run = RUNS[request.path_params["run"]]
    run += [orjson.dumps(event).decode() for event in orjson.loads(await request.body())]
    return Response(status_code=204)


async def stream(request: Request) -> StreamingResponse:
    """Send all events."""

    async def body() -> AsyncIterator[str]:
        for number, data in enumerate(RUNS[request.path_params["run"]], 1):
            yield f"event: message\nid: {number}\ndata: {data}\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def healthz(_: Request) -> Response:
    """Answer at once, unless the loop is busy."""
    return Response()


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    host, port = listening.getsockname()
    print(f"{host}:{port}", flush=True)
    routes = [Route("/healthz", healthz), Route("/{run}", stream), Route("/{run}", append, methods=["POST"])]
    uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off")).run([listening])
