"""The snippets of the README and the documentation, as their readers see them.

A comment before a block says how it differs from the others: `<!-- not run: why -->`, `<!-- runs until cancelled -->`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
    if path.name != "CHANGELOG.md"
]
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
NOTES = re.compile(r"not run: \w.{8,}|runs until cancelled")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A block of code of a page."""

    page: str
    line: int
    language: str
    code: str
    note: str

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return not self.note.startswith("not run: ")


def snippets(page: str, language: str) -> list[Snippet]:
    """Return a page's blocks in a language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        if block["language"] == language:
            line = text.count("\n", 0, block.start("code")) + 1
            found.append(Snippet(page, line, language, block["code"], block["note"] or ""))
    return found


def pages_with(language: str) -> list[str]:
    """Return the pages that have blocks in a language."""
    return [page for page in PAGES if snippets(page, language)]
