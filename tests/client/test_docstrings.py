"""Every public name shows how it is used, by an example that works.

Examples are the indented blocks behind `Example:`. Each is run with `client`, `target` and three ids: of a run
that ended well, of one that failed, and a resume token of the first. Those of an integration have its
framework's names and an offline model as well.
"""

import ast
import asyncio
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

import lavant.client
from client import offline
from lavant.client import AsyncClient, Client
from support.server import Server

INTEGRATIONS = [
    f"lavant.client.integrations.{path.stem}"
    for path in sorted((Path(lavant.client.__file__).parent / "integrations").glob("[a-z]*.py"))
]


def public(module: ModuleType) -> list[str]:
    """A module's names for users: those of its `__all__`, else what it defines."""
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return sorted(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def documented(module: ModuleType, name: str) -> Iterator[tuple[str, str]]:
    """What belongs to a public name and has a docstring: the name itself, then its methods."""
    value = getattr(module, name)
    if not hasattr(value, "__name__"):  # An alias, as Event is one, is told of by its module.
        yield name, inspect.getdoc(importlib.import_module("lavant.client._events")) or ""
        return
    yield name, inspect.getdoc(value) or ""
    for method, function in vars(value).items() if inspect.isclass(value) else ():
        yield f"{name}.{method}", inspect.getdoc(function) or ""


def examples() -> Iterator[Any]:
    for module in map(importlib.import_module, ["lavant.client", *INTEGRATIONS]):
        for name in public(module):
            found = {at: example(doc) for at, doc in documented(module, name)}
            for at, code in found.items():
                if code or at == name:
                    yield pytest.param(module, code, id=f"{module.__name__.rpartition('.')[2]}.{at}")


def example(docstring: str) -> str:
    _, found, rest = docstring.partition("Example:\n")
    return textwrap.dedent(rest) if found else ""


@pytest.mark.parametrize(("module", "code"), list(examples()))
async def test_an_example_works(server: Server, client: AsyncClient, module: ModuleType, code: str) -> None:
    assert code, "has no example: add an `Example:` block to its docstring"
    compiled = compile(code, module.__name__, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {**vars(lavant.client), **vars(module), **offline.names(module.__name__), "timedelta": timedelta}
    names |= await offline.runs(client) | {"client": client, "target": server.target}
    if compiled.co_flags & inspect.CO_COROUTINE:
        await eval(compiled, names)
    else:
        await asyncio.to_thread(run_blocking, compiled, names)


def run_blocking(compiled: CodeType, names: dict[str, Any]) -> None:
    with Client(names["target"]) as client:
        exec(compiled, {**names, "client": client})
