"""The contract's comments are whole sentences: no telegrams. Their words are checked with all others."""

import re
from pathlib import Path

import pytest

from tree.words import ROOT, comments

CONTRACT = ROOT / "protos" / "lavant" / "v1"
FEWEST_WORDS = 3
TELEGRAM = re.compile(r"(See|As in) `?[A-Z]\w*`?\.?|Which\b[^.]*\.|As (it stands|granted|it ended)\.")


def faults(comment: str) -> list[str]:
    """Reasons to refuse a comment."""
    found = []
    if len(comment.split()) < FEWEST_WORDS:
        found.append(f"has fewer than {FEWEST_WORDS} words")
    if TELEGRAM.fullmatch(comment):
        found.append("says nothing of its own")
    return found


@pytest.mark.parametrize(
    "comment",
    ["Which.", "A model.", "See CreateRule.", "As it stands.", "Which rule to change."],
)
def test_a_telegram_is_seen(comment: str) -> None:
    assert faults(comment)


@pytest.mark.parametrize("comment", ["ID of the run. Required.", "Request of GetRun.", "Runs that a backfill selects."])
def test_a_plain_comment_passes(comment: str) -> None:
    assert not faults(comment)


@pytest.mark.parametrize("path", sorted(CONTRACT.glob("*.proto")), ids=lambda path: path.name)
def test_comments_of_the_contract_speak_plainly(path: Path) -> None:
    refused = {f"{path.name}:{number}": found for number, text in comments(path.read_text()) if (found := faults(text))}
    assert not refused
