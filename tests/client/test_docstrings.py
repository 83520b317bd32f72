"""Every public name has an example of its use, which works.

Examples are the indented blocks behind `Example:`, last in a docstring. Each is run by itself, against a server of
its own, with `client`, `target` and what `offline.runs` has recorded: `run_id`, a resume `token` of that run,
`failed_id`, `timed_out_id` and `evaluation_id`. Those of an integration have its framework's names and an offline
model as well. An example without `await` is run with the blocking client. What an example tries must raise, and
one that prints must print something.
"""

import ast
import asyncio
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import CodeType, ModuleType
from typing import Any, get_args

import pytest

import lavant.client
from lavant.client import AsyncClient, Client
from support import offline
from support.server import Server

INTEGRATIONS = [
    f"lavant.client.integrations.{name}"
    for name in ("agent_streaming", "langchain", "openai_agents", "opentelemetry", "pydantic_ai", "pydantic_deep")
]
# Errors that this server does not raise: they need a full, restored or damaged store, credentials, or another client.
WITHOUT_EXAMPLE = {
    "BackfillUnderWay",
    "DataLoss",
    "PermissionDenied",
    "ProducerGap",
    "QuotaExceeded",
    "SampleLost",
    "StaleAttempt",
    "StoreEpochChanged",
    "Unauthenticated",
}


def public(module: ModuleType) -> list[str]:
    """A module's names for users: those of its `__all__`, else what it defines."""
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def documented(module: ModuleType, name: str) -> Iterator[tuple[str, str]]:
    """What belongs to a public name and has a docstring: the name itself, then its methods, inherited ones too."""
    value = getattr(module, name)
    if members := get_args(value):  # An alias such as Event has the docstring of its members' module.
        yield name, inspect.getdoc(inspect.getmodule(members[0])) or ""
        return
    yield name, inspect.getdoc(value) or ""
    for member, found in inspect.getmembers_static(value) if inspect.isclass(value) else ():
        function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        if inspect.isfunction(function) and function.__module__.startswith("lavant."):
            yield f"{name}.{member}", inspect.getdoc(function) or ""


def examples() -> Iterator[Any]:
    for module in map(importlib.import_module, ["lavant.client", *INTEGRATIONS]):
        for name in public(module):
            found = {at: example(doc) for at, doc in documented(module, name)}
            for at, code in found.items():
                if code or (at == name and name not in WITHOUT_EXAMPLE):
                    yield pytest.param(module, code, id=f"{module.__name__.rpartition('.')[2]}.{at}")


def example(docstring: str) -> str:
    _, found, rest = docstring.partition("Example:\n")
    return textwrap.dedent(rest) if found else ""


def compiled(code: str) -> CodeType:
    """Compile an example, so that what it tries fails if nothing is raised."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            node.body += ast.parse("raise AssertionError('nothing was raised')").body
    made: CodeType = compile(tree, "<example>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return made


@pytest.mark.parametrize(("module", "code"), list(examples()))
async def test_an_example_works(
    server: Server,
    client: AsyncClient,
    module: ModuleType,
    code: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code, "has no example: add an `Example:` block to its docstring"
    made = compiled(code)
    names = {
        **{name: getattr(lavant.client, name) for name in lavant.client.__all__},
        **vars(module),
        **offline.names(module.__name__),
        "timedelta": timedelta,
        "datetime": datetime,
        "UTC": UTC,
    }
    names |= await offline.runs(client, server.stubs) | {"client": client, "target": server.target}
    if made.co_flags & inspect.CO_COROUTINE:
        await eval(made, names)
    else:
        await asyncio.to_thread(run_blocking, made, names)
    assert "print(" not in code or capsys.readouterr().out, "printed nothing"


def run_blocking(made: CodeType, names: dict[str, Any]) -> None:
    with Client(names["target"]) as client:
        exec(made, {**names, "client": client})
