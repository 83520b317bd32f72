"""What each module of the tree imports, read from its source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(part: str) -> Iterator[tuple[str, str]]:
    """Name and source of every module of one part: client or server."""
    for path in sorted((ROOT / part / "lavant").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / part).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path.read_text()


def imports(source: str) -> set[str]:
    """All that a source imports, wherever in it: `from a import b` counts as a and as a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "relative imports are not used here"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found
