"""The README's Python works, block by block."""

import ast
import asyncio
import itertools
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client import offline
from lavant.client import AsyncClient, RunState
from support.calls import until
from support.server import Server
from support.web import serving_web

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def block(part: str, target: str = "") -> str:
    """Return the only block that has this in it, with the server's address and offline models put in."""
    (found,) = [block for block in BLOCKS if part in block]
    found = found.replace("localhost:7447", target).replace('"openai:gpt-5"', "model")
    return str(found).replace("create_deep_agent(...,", "create_deep_agent(deep_model, **offline,")


async def execute(code: str, names: dict[str, Any]) -> None:
    await eval(compile(code + "\nawait nothing()", "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)


async def nothing() -> None:
    """Make a coroutine of code that awaits nothing."""


def test_every_block_is_here() -> None:
    assert len(BLOCKS) == 8


async def test_publish_and_read(server: Server, client: AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(exec, block("async def main", server.target), {"__name__": "readme"})
    run = await anext(client.runs.list())
    assert (run.name, run.state, run.result and run.result.output) == (
        "weather-agent",
        RunState.SUCCEEDED,
        {"answer": "cold"},
    )
    said, token = capsys.readouterr().out.split("\n", 1)
    assert said == "It is cold in Oslo."
    assert [event async for event in client.runs.stream(run.id, resume_token=token.strip())] == []
    await asyncio.to_thread(exec, block("import Client", server.target), {"run": run})
    assert capsys.readouterr().out == "It is cold in Oslo."


async def test_frameworks(client: AsyncClient) -> None:
    names: dict[str, Any] = {"client": client, "nothing": nothing}
    for module in ("pydantic_deep", "langchain", "pydantic_ai"):
        names |= offline.names(module)
    await execute(block("import LavantCapability"), names)
    await names["agent"].run("How is it?")
    openai, langchain, deep = re.split(r"\n(?=from lavant)", block("import LavantRunner"))
    sdk = offline.names("openai_agents")
    await execute(openai, {**names, "agent": sdk["Agent"]("weather-agent", model=sdk["model"])})
    prompt = names["ChatPromptTemplate"].from_template("How is it in {city}?")
    chain = prompt | offline.names("langchain")["model"]
    await execute(langchain, {**names, "chain": chain, "question": {"city": "Oslo"}})
    names["deep_model"] = offline.names("pydantic_deep")["model"]
    await execute(deep, names)
    await names["agent"].run("Plan the day.", deps=names["DeepAgentDeps"]())
    states = [run.state async for run in client.runs.list()]
    assert states == [RunState.SUCCEEDED] * 4


class Routes:
    """FastAPI's way to declare a route, as far as the block goes."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def get(self, path: str) -> Callable[[Any], None]:
        async def answer(request: Request) -> Response:
            return cast("Response", await self._endpoint(**request.path_params, request=request))

        def declare(endpoint: Any) -> None:
            self._endpoint = endpoint
            self.routes.append(Route(path, answer))

        return declare


async def test_server_sent_events(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.text("cold")
    app = Routes()
    await execute(block("import sse"), {"app": app, "client": client, "Request": Request, "nothing": nothing})
    async with serving_web(Starlette(routes=app.routes)) as web:
        assert "event: run_finished" in (await web.get(f"/chat/{run.id}/events")).text
        assert (await web.get("/chat/nope/events")).status_code == 404


async def test_evaluate(client: AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    await execute(block("import EqualsExpected"), {"client": client, "nothing": nothing})
    assert capsys.readouterr().out == "oslo 1.0\n" * 3


def drawn_id() -> str:
    """An id that rules of a rate of 0.1 draw, by the contract's rule."""
    ids = (f"run-{number}" for number in itertools.count())
    return next(one for one in ids if int.from_bytes(sha256(f"\0{one}".encode()).digest()[:8]) < 2**64 // 10)


async def test_judge(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_JUDGE_MODEL", "test")
    names: dict[str, Any] = {"client": client, "nothing": nothing, "__name__": __name__}
    await execute(block("sample_rate=0.1"), names)
    async with client.runs.start("weather-agent", run_id=drawn_id()) as run:
        run.output = {"answer": "cold"}
    working = asyncio.create_task(execute(block("process_stream"), names))

    async def is_judged() -> bool:
        return len([score async for score in client.runs.scores(run.id)]) == 2

    await until(is_judged)
    working.cancel()
    scores = {score.name: (score.value, score.labels) async for score in client.runs.scores(run.id)}
    assert scores["Frugal"] == (True, {"feeling": "neutral"})
    assert scores["success"][0] is not None
    with pytest.raises(asyncio.CancelledError):
        await working
