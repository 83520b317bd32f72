"""The example of a chat backend, as a browser uses it."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic_ai import Agent

from examples import chat
from lavant.client import AsyncClient
from support.pydantic_ai import call, scripted
from support.server import Server
from support.web import Frame, frames_of, serving_web

CONTROL = {"opened", "end"}


class Kettle:
    """A tool that takes as long as the test wants."""

    def __init__(self) -> None:
        self.is_on = asyncio.Event()
        self.boils = asyncio.Event()

    async def boil(self) -> str:
        """Boil water."""
        self.is_on.set()
        await self.boils.wait()
        return "hot"


@pytest.fixture
def kettle() -> Kettle:
    return Kettle()


@pytest.fixture
async def web(server: Server, kettle: Kettle) -> AsyncIterator[httpx.AsyncClient]:
    agent = Agent(scripted(["Let me see. ", call(0, "boil")], ["It is ", "hot."]), name="chat", tools=[kettle.boil])
    async with serving_web(chat.create_app(agent, server.target)) as opened:
        yield opened


async def start(web: httpx.AsyncClient) -> str:
    answer = await web.post("/chat", json={"prompt": "go"})
    assert answer.status_code == 202
    return str(answer.json()["run_id"])


async def read(web: httpx.AsyncClient, run_id: str, last_id: str = "", until: str = "end") -> list[Frame]:
    frames = []
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with web.stream("GET", f"/chat/{run_id}/events?consumer=tab", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for frame in frames_of(response):
            frames.append(frame)
            if frame.name == until:
                break
    return frames


async def test_a_chat_is_streamed_over_a_cut(web: httpx.AsyncClient, kettle: Kettle) -> None:
    run_id = await start(web)
    first = await read(web, run_id, until="tool_call_started")
    kettle.boils.set()
    rest = await read(web, run_id, first[-1].id)
    events = [json.loads(frame.data) for frame in [*first, *rest] if frame.name not in CONTROL]
    assert [int(event["sequence"]) for event in events] == [*range(1, len(events) + 1)]
    assert "".join(event["text_delta"]["text"] for event in events if "text_delta" in event) == "Let me see. It is hot."
    after = await web.get(f"/chat/{run_id}/events?consumer=tab", headers={"Last-Event-ID": rest[-1].id})
    assert after.status_code == 204


async def test_stopping_a_chat_cancels_its_run(web: httpx.AsyncClient, kettle: Kettle, server: Server) -> None:
    run_id = await start(web)
    await kettle.is_on.wait()
    assert (await web.post(f"/chat/{run_id}/stop")).status_code == 200
    frames = await read(web, run_id)
    assert json.loads(frames[-2].data)["run_finished"]["state"] == "RUN_STATE_CANCELLED"


async def test_what_is_wrong_is_a_status(web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await web.get("/chat/nope/events")).status_code == 404
    assert (await web.post("/chat/nope/stop")).status_code == 404
    assert (await web.post("/chat", json={"prompt": 7})).status_code == 400
    monkeypatch.setattr(chat, "MAX_AGENTS", 0)
    full = await web.post("/chat", json={"prompt": "go"})
    assert (full.status_code, full.headers["retry-after"]) == (503, "5")


async def test_agents_at_work_are_cancelled_with_the_application(server: Server, kettle: Kettle) -> None:
    agent = Agent(scripted([call(0, "boil")], ["done"]), name="chat", tools=[kettle.boil])
    async with serving_web(chat.create_app(agent, server.target)) as web:
        run_id = await start(web)
        await kettle.is_on.wait()
    async with AsyncClient(server.target) as client:
        assert (await client.runs.wait(run_id, timeout=10)).state == "cancelled"
