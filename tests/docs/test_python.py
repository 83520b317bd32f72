"""The Python of the README and the documentation works: a page's blocks in order, as one program."""

import ast
import asyncio
import itertools
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from docs.snippets import NOTES, PAGES, Snippet, pages_with, snippets
from lavant.client import AsyncClient, RunState
from support import offline
from support.calls import until
from support.server import Server


async def nothing() -> None:
    """Make a coroutine of code that awaits nothing."""


class Routes:
    """FastAPI's way to declare a route, as far as the pages use it."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def get(self, path: str) -> Callable[[Any], None]:
        def declare(endpoint: Any) -> None:
            async def answer(request: Request) -> Response:
                return cast("Response", await endpoint(**request.path_params, request=request))

            self.routes.append(Route(path, answer))

        return declare


def prepared(snippet: Snippet, target: str) -> str:
    """Return the code of a block with the server's address and offline models put in."""
    code = snippet.code.replace("localhost:7447", target).replace("asyncio.run(main())", "await main()")
    code = code.replace('"openai:gpt-5"', "pydantic_ai_model").replace('"gpt-5"', "openai_agents_model")
    return "\n" * (snippet.line - 1) + code.replace(
        "create_deep_agent(...,", "create_deep_agent(deep_model, **offline,"
    )


async def execute(snippet: Snippet, names: dict[str, Any], target: str) -> None:
    """Run a block as the body of a coroutine; one that blocks, in a thread."""
    code = prepared(snippet, target)
    if "await " in code or "async " in code:
        compiled = compile(code + "\nawait nothing()", snippet.page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(compiled, names)
    else:
        await asyncio.to_thread(exec, compile(code, snippet.page, "exec"), names)


def offline_names() -> dict[str, Any]:
    """Return the names that pages use without defining them: agents and chains of frameworks, a web application."""
    deep, chain = offline.names("pydantic_deep"), offline.names("langchain")
    prompt = chain["ChatPromptTemplate"].from_template("How is it in {city}?")
    return {
        "app": Routes(),
        "chain": prompt | chain["model"],
        "create_deep_agent": deep["create_deep_agent"],
        "deep_model": deep["model"],
        "nothing": nothing,
        "offline": deep["offline"],
        "openai_agents_model": offline.names("openai_agents")["model"],
        "pydantic_ai_model": offline.names("pydantic_ai")["model"],
        "Request": Request,
    }


@pytest.mark.parametrize("page", pages_with("python"))
async def test_the_python_of_a_page_runs(
    page: str, server: Server, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAVANT_JUDGE_MODEL", "test")
    names = {"__name__": __name__, "client": client, **offline_names()}
    for snippet in snippets(page, "python"):
        if snippet.note == "runs until cancelled":
            await evaluate_a_sample(snippet, names, client, server.target)
        elif snippet.is_run:
            await execute(snippet, names, server.target)
    opened = {name: value for name, value in names.items() if isinstance(value, AsyncClient) and value is not client}
    for value in opened.values():
        await value.aclose()


async def evaluate_a_sample(snippet: Snippet, names: dict[str, Any], client: AsyncClient, target: str) -> None:
    """Run a block with a worker until it has evaluated a run that the page's rule selects."""
    async with client.runs.start("weather-agent", run_id=selected_id()) as run:
        run.output = {"answer": "cold"}
    working = asyncio.create_task(execute(snippet, names, target))

    async def is_evaluated() -> bool:
        return len([score async for score in client.runs.scores(run.id)]) == 2

    await until(is_evaluated)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working


def selected_id() -> str:
    """Return an ID that rules of a rate of 0.1 select, by the contract's rule."""
    ids = (f"run-{number}" for number in itertools.count())
    return next(one for one in ids if int.from_bytes(sha256(f"\0{one}".encode()).digest()[:8]) < 2**64 // 10)


async def test_the_readme_publishes_and_reads(
    server: Server, client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = snippets("README.md", "python")
    await execute(snippet, {"__name__": "readme", "nothing": nothing}, server.target)
    run = await anext(client.runs.list())
    assert (run.name, run.state) == ("weather-agent", RunState.SUCCEEDED)
    assert run.result is not None
    assert run.result.output == {"answer": "cold"}
    assert "It is cold in Oslo." in capsys.readouterr().out
    assert len(snippet.code.splitlines()) <= 20


async def test_the_frameworks_of_the_page_record_runs(server: Server, client: AsyncClient) -> None:
    names = {"__name__": __name__, "client": client, **offline_names()}
    for snippet in snippets("docs/integrations.md", "python"):
        await execute(snippet, names, server.target)
    states = [run.state async for run in client.runs.list()]
    assert states == [RunState.SUCCEEDED] * 3  # the deep agent is only created


@pytest.mark.parametrize("page", PAGES)
def test_every_note_of_a_block_says_why(page: str) -> None:
    for language in ("python", "sh"):
        for snippet in snippets(page, language):
            assert not snippet.note or NOTES.fullmatch(snippet.note), f"{page}:{snippet.line}"
