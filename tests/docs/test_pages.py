"""The documentation names files that exist, and its diagrams are those of their sources."""

import hashlib
import re
from pathlib import Path

import pytest

from docs.snippets import PAGES, ROOT

# A path of the repository in code; the part before the first word in capitals or angle brackets must exist.
_PATH = re.compile(r"`((?:client|server|tests|docs|protos|generated)/[\w./@-]*\w/?)[^`]*`")


@pytest.mark.parametrize("page", PAGES)
def test_the_paths_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [path for path in _PATH.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if ":" not in target]
    written = ("reference/", "contributing.md", "security.md")  # when the site is built
    missing = [target for target in linked if target and not (ROOT / page).parent.joinpath(target).exists()]
    assert not [target for target in missing if not target.startswith(written)]


@pytest.mark.parametrize("source", sorted((ROOT / "docs" / "diagrams").glob("*.mmd")), ids=lambda path: path.stem)
def test_a_diagram_is_that_of_its_source(source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    assert source.with_suffix(".svg").read_text(encoding="utf-8").startswith(f"<!-- source: {digest} -->"), (
        "run docs/diagrams/render.py"
    )
