"""Each line of docs/protocol.md names the cases that test it, and each case is named there."""

import re

from conformance.suite import PAGE, cases, lines


def test_each_case_is_named_on_the_page() -> None:
    named = lines()
    assert [case.name for case in cases() if case.name not in named] == []


def test_each_row_of_the_page_names_its_cases() -> None:
    names = {case.name for case in cases()}
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (?!.*\| case \|$)", line)]
    last = [row.rstrip("|").rpartition(" | ")[2].strip() for row in rows]
    unknown = [
        cell for cell in last if not cell.startswith("none: ") and not set(re.findall(r"`(\w+)`", cell)) <= names
    ]
    empty = [row for row, cell in zip(rows, last, strict=True) if "`" not in cell and not cell.startswith("none: ")]
    assert (unknown, empty) == ([], [])


def test_each_case_has_one_sentence() -> None:
    assert [case.name for case in cases() if not case.sentence.endswith(".")] == []
