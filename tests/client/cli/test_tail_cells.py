"""Text is made to fit a terminal."""

import pytest
from rich.text import Text

from lavant.client.cli.cells import cells, cut, wrap
from lavant.client.cli.untrusted import neutral, neutral_json, neutral_line


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("東京", 4), ("e\u0301", 1), ("👍🏽", 4), ("🇳🇴", 4), ("❤\ufe0f", 2), ("", 0)],
)
def test_the_width_is_the_widest_of_any_terminal(text: str, width: int) -> None:
    assert cells(text) == width


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [("abcdef", 6, "abcdef"), ("abcdef", 5, "abcd…"), ("東京東京", 6, "東京…"), ("a👍🏽b", 5, "a👍🏽…")],
)
def test_what_does_not_fit_is_left_out(text: str, width: int, short: str) -> None:
    assert cut(Text(text), width).plain in (short, short.replace("🏽", ""))
    assert cells(cut(Text(text), width).plain) <= width


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two", ["one two"]),
        ("one two three", ["one two", "three"]),
        ("one two  ", ["one two  "]),
        ("  indented text", ["  indente", "d text"]),
        ("a verylongwordindeed b", ["a", "verylongw", "ordindeed", "b"]),
        ("東京東京東京", ["東京東京", "東京"]),
        ("", [""]),
    ],
)
def test_paragraphs_are_broken_between_words(text: str, lines: list[str]) -> None:
    assert [line.rstrip() if len(line) > 9 else line for line in wrap(text, 9)] == [
        line.rstrip() if len(line) > 9 else line for line in lines
    ]


def test_text_that_comes_in_pieces_is_broken_as_the_whole_is() -> None:
    text = "the quick brown  fox jumps over a 東京 averyverylongword dog " * 5
    for size in (1, 2, 5, 13):
        lines, last = [], ""
        for begin in range(0, len(text), size):
            *full, last = wrap(last + text[begin : begin + size], 20)
            lines += full
        assert [line.rstrip() for line in [*lines, last]] == [line.rstrip() for line in wrap(text, 20)]


def test_what_steers_a_terminal_is_shown_instead() -> None:
    assert neutral("a\x1b[31m\x9b\x00\u202eb\u2066") == "a�[31m��" + "�b�"
    assert neutral("a\r\nb\rc\u2028d\te\xa0f") == "a\nb\nc\nd    e f"
    assert neutral("क\u200cष 👩\u200d💻") == "क\u200cष 👩💻"
    assert neutral_line(" a\n b\x07 ") == "a b�"
    assert neutral_line("x" * 50, 10) == "x" * 9 + "…"
    assert neutral_json('"\x9b\u202eå\U000e0041"') == '"\\u009b\\u202eå\\udb40\\udc41"'
