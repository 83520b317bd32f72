"""What users may import, and what that imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lavant.client
from lavant.client import errors as _errors


def test_names_are_sorted_and_exist() -> None:
    names = lavant.client.__all__
    assert names == sorted(names)
    assert all(hasattr(lavant.client, name) for name in names)


def test_all_errors_are_public_and_in_the_tree() -> None:
    errors = [name for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert set(errors) <= set(lavant.client.__all__)
    assert all(f" {name}" in str(_errors.__doc__) for name in errors)


def test_type_checkers_and_the_interpreter_find_the_same_names() -> None:
    tree = ast.parse(Path(str(lavant.client.__file__)).read_text())
    [imports] = [node.body for node in tree.body if isinstance(node, ast.If)]
    found = {
        name.asname: str(node.module).removeprefix("lavant.client.")
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert found == lavant.client._HOMES
    assert set(found) <= set(dir(lavant.client))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = lavant.client.Nothing


def imported_by(statement: str) -> set[str]:
    """Return what a fresh interpreter has imported after a statement."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        ("import lavant.client", {"grpc", "pydantic", "google.protobuf.message", "asyncio"}),
        ("from lavant.client import RunState", {"grpc", "lavant.client.models"}),
        (
            "from lavant.client import AsyncClient; AsyncClient()",
            {"lavant.client._sync", "lavant.client.evaluations", "typer", "rich"},
        ),
        (
            "from lavant.client import Client; Client()",
            {"lavant.client._async", "lavant.client.evaluations", "typer", "rich"},
        ),
        (
            "from lavant.client.cli.app import run; run(['--help'])",
            {"grpc", "rich", "pydantic", "lavant.v1", "lavant.client.cli.runs", "lavant.server.commands.stores"},
        ),
    ],
)
def test_an_import_leaves_out_what_it_does_not_need(statement: str, left_out: set[str]) -> None:
    assert not left_out & imported_by(statement)
