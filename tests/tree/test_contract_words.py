"""The contract's comments speak plainly: no telegrams, and no words that the glossary replaces."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tree.imports import ROOT

CONTRACT = ROOT / "protos" / "lavant" / "v1"
FEWEST_WORDS = 3
TELEGRAM = re.compile(r"(See|As in) `?[A-Z]\w*`?\.?|Which\b[^.]*\.|As (it stands|granted|it ended)\.")
# Only words without another meaning in the contract: `verdict`, for one, is a field's name there.
BANNED = re.compile(
    r"\b(anew|as it stands|bookmarks?|cursors?|desks?|drawn|gives? back|hands? out|handed out|hears? of|heard from"
    r"|judged|look(?:s|ed)? at|signs? of life)\b",
    re.IGNORECASE,
)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Each comment as one text, with the number of the line that it describes."""
    words: list[str] = []
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("//"):
            words += line.lstrip().removeprefix("//").split()
        elif words:
            yield number, " ".join(words)
            words = []


def faults(comment: str) -> list[str]:
    """Reasons to refuse a comment."""
    found = [f"says {word.group()!r}" for word in BANNED.finditer(comment)]
    if len(comment.split()) < FEWEST_WORDS:
        found.append(f"has fewer than {FEWEST_WORDS} words")
    if TELEGRAM.fullmatch(comment):
        found.append("says nothing of its own")
    return found


@pytest.mark.parametrize(
    "comment",
    ["Which.", "A model.", "See CreateRule.", "As it stands.", "Which rule to change.", "Begin anew without a token."],
)
def test_a_telegram_or_a_banned_word_is_seen(comment: str) -> None:
    assert faults(comment)


@pytest.mark.parametrize("comment", ["ID of the run. Required.", "Request of GetRun.", "Runs that a backfill selects."])
def test_a_plain_comment_passes(comment: str) -> None:
    assert not faults(comment)


@pytest.mark.parametrize("path", sorted(CONTRACT.glob("*.proto")), ids=lambda path: path.name)
def test_comments_of_the_contract_speak_plainly(path: Path) -> None:
    refused = {f"{path.name}:{number}": found for number, text in comments(path.read_text()) if (found := faults(text))}
    assert not refused
