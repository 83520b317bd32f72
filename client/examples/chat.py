"""A chat backend: starts an agent, streams what it does to the browser, and stops it when the user asks.

    lavant serve &
    uvicorn --app-dir client examples.chat:app --port 8000

`POST /chat` with `{"prompt": "How is it in Oslo?"}` answers `{"run_id": ...}`; `GET /chat/RUN/events` is for
EventSource, which reconnects by itself and continues at the next event; `POST /chat/RUN/stop` stops the agent.
Routes of FastAPI are the same: pass its Request to `sse.response`, and return the Response.

Needs `pip install 'lavant[sse,pydantic-ai]' uvicorn`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pydantic_ai import Agent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.demo_agent import QUESTION, build_agent
from lavant.client import AsyncClient, LavantError, RunNotFound, sse
from lavant.client.integrations.pydantic_ai import LavantCapability

MAX_AGENTS = 100
MAX_SECONDS = 600
MAX_PROMPT = 10_000


class Chats:
    """The agents that run: a limited number, each for a limited time."""

    def __init__(self, client: AsyncClient, agent: Agent[Any, Any]) -> None:
        self._client = client
        self._agent = agent
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, run_id: str) -> bool:
        """Return whether the agent of a run is running."""
        return run_id in self._tasks

    def start(self, prompt: str) -> str | None:
        """Start an agent; return its run's ID, or None if too many are running."""
        if len(self._tasks) >= MAX_AGENTS:
            return None
        run_id = str(uuid4())
        task = self._tasks[run_id] = asyncio.create_task(self._run(prompt, run_id))
        task.add_done_callback(lambda _: self._tasks.pop(run_id))
        return run_id

    async def aclose(self) -> None:
        """Cancel all agents: their runs end as cancelled."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, prompt: str, run_id: str) -> None:
        async with asyncio.timeout(MAX_SECONDS):
            await self._agent.run(prompt, capabilities=[LavantCapability(self._client, run_id=run_id)])


async def start(request: Request) -> Response:
    """Start an agent on a prompt."""
    prompt = (await request.json()).get("prompt") or QUESTION
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT:
        return JSONResponse({"error": f"prompt must be text of at most {MAX_PROMPT} characters"}, 400)
    run_id = request.app.state.chats.start(prompt)
    if run_id is None:
        return JSONResponse({"error": "too many agents are running"}, 503, {"Retry-After": "5"})
    return JSONResponse({"run_id": run_id}, 202)


async def events(request: Request) -> Response:
    """Stream what an agent does; one tab per consumer name."""
    run_id, state = request.path_params["run_id"], request.app.state
    stream = state.client.runs.stream(
        run_id,
        consumer=request.query_params.get("consumer"),
        wait_for_run=run_id in state.chats,  # An agent that has just started may not have created its run yet.
        idle_timeout=300,
    )
    return await sse.response(stream, request)


async def stop(request: Request) -> Response:
    """Stop an agent."""
    try:
        run = await request.app.state.client.runs.cancel(request.path_params["run_id"], "the user pressed stop")
    except RunNotFound as error:
        return JSONResponse({"error": str(error)}, 404)
    except LavantError:
        return JSONResponse({"error": "the server is not available"}, 503, {"Retry-After": "1"})
    return JSONResponse({"state": run.state})


def create_app(agent: Agent[Any, Any], target: str | None = None) -> Starlette:
    """Build the application, which streams runs of the server at `target`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncClient(target) as app.state.client:
            app.state.chats = Chats(app.state.client, agent)
            try:
                yield
            finally:
                await app.state.chats.aclose()

    routes = [
        Route("/chat", start, methods=["POST"]),
        Route("/chat/{run_id}/events", events),
        Route("/chat/{run_id}/stop", stop, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


app = create_app(build_agent())
