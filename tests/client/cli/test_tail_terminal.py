"""`lavant tail` in a terminal of 80 columns, as its screen then looks."""

import asyncio
import signal
import unicodedata

import pytest

from client.cli.conftest import Start
from client.cli.terminal import Terminal, has, terminal
from lavant.client import AsyncClient, AsyncRunProducer, Usage

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


async def test_tools_run_side_by_side_below_what_stays(client: AsyncClient, start: Start) -> None:
    async with terminal(start, "tail", "r", "--wait-for-run") as screen:
        async with client.runs.start("weather", run_id="r", input={"city": "Oslo"}, model="gpt-5") as run:
            await at_work(run, screen)
            run.usage = Usage(input_tokens=5, output_tokens=6)
        assert await screen.ended() == 0
    lines = screen.lines
    assert [line[:12] for line in lines[7:11]] == ["✓ search  q=", '  └ {"celsiu'] * 2
    assert lines[11:13] == ["· sources  1/4  25%", ""]
    assert lines[13].startswith("✓ succeeded after ")
    assert lines[13].endswith("  5 tokens in · 6 out")
    assert len(lines) == 14
    assert not screen.cursor_is_hidden


async def at_work(run: AsyncRunProducer, screen: "Terminal") -> None:
    """Two tools at a time, after some text."""
    go_on = asyncio.Event()

    async def search(number: int) -> None:
        async with run.step("search", "tool"), run.tool("search", {"q": f"{number} " + "x" * 90}) as tool:
            await go_on.wait()
            tool.result = {"celsius": -number}

    await run.text("I look it up in two places, and compare what they say before I answer you at last.\nSo.")
    await screen.shows(has("So."))
    both = asyncio.gather(search(1), search(2))
    await run.progress("sources", 1, 4)
    lines = await screen.shows(lambda lines: has('q="2')(lines) and has("1/4")(lines))
    assert lines[:6] == [
        "▶ weather" + " " * 70 + "r",
        '» city="Oslo"' + " " * 62 + "gpt-5",
        "",
        "I look it up in two places, and compare what they say before I answer you at",
        "last.",
        "So.",
    ]
    below = lines[lines.index("So.") + 2 :]
    assert [line[2:13] for line in below[:2]] == ['search  q="', 'search  q="']
    assert all(line[0] in SPINNER and len(line) == 80 and "…  " in line for line in below[:2])
    assert below[2] == "sources  " + "━" * 8 + "─" * 22 + "  1/4  25%"
    assert below[3][2:9] == "running"
    go_on.set()
    await both


async def test_text_grows_word_by_word(client: AsyncClient, start: Start) -> None:
    words = "Det er kaldt i Oslo, " + "東京は寒い " * 12 + "👩‍💻👍🏽 " * 20 + "e\u0301" * 70
    async with terminal(start, "tail", "r", "--wait-for-run") as screen:
        async with client.runs.start("weather", run_id="r") as run:
            for begin in range(0, len(words), 3):
                await run.text(words[begin : begin + 3])
            open_text = await screen.shows(lambda lines: "é" * 70 in unicodedata.normalize("NFC", "".join(lines)))
            assert open_text[2].startswith("Det er kaldt i Oslo, 東京は寒い")
        await screen.ended()
    shown = "".join(screen.lines[2:-2]).replace(" ", "")
    expected = words.replace(" ", "").replace("\u200d", "")
    assert unicodedata.normalize("NFC", shown) == unicodedata.normalize("NFC", expected)


async def test_colours_only_where_wanted(client: AsyncClient, start: Start) -> None:
    async with client.runs.start("weather", run_id="r") as run, run.tool("search"):
        pass
    async with terminal(start, "tail", "r") as screen:
        await screen.ended()
        assert screen.style_of("✓ search") == "green"
    async with terminal(start, "tail", "r", NO_COLOR="1") as plain:
        await plain.ended()
        assert plain.style_of("✓ search") == "default"
        assert [line[:8] for line in plain.lines] == [line[:8] for line in screen.lines]
    async with terminal(start, "tail", "r", TERM="dumb") as dumb:
        await dumb.ended()
        assert b"\x1b" not in dumb.raw
        assert has("→ search")(dumb.lines)
        assert has("✓ succeeded")(dumb.lines)


async def test_hostile_text_steers_nothing(client: AsyncClient, start: Start) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\x9b31m\b\b\x00\u202e"
    async with client.runs.start("weather", run_id="r", input=hostile) as run:
        await run.text(hostile)
        async with run.tool("search", {hostile: hostile}) as tool:
            tool.result = hostile
        await run.error(hostile)
    async with terminal(start, "tail", "r") as screen:
        assert await screen.ended() == 0
    assert b"\x1b[2J" not in screen.raw
    assert b"\x1b]" not in screen.raw
    assert not {"\x9b", "\b", "\x00", "\u202e", "\x07"} & set(screen.raw.decode())
    assert screen.lines[1].startswith("» �[2J�]0;owned")
    assert screen.lines[-1].startswith("✓ succeeded")


@pytest.mark.parametrize("status", [130, 143])
async def test_an_interrupted_tail_leaves_the_terminal_in_order(client: AsyncClient, start: Start, status: int) -> None:
    async with client.runs.start("weather", run_id="r") as run, terminal(start, "tail", "r") as screen:
        await run.text("half a sen")
        async with run.tool("search"):
            await screen.shows(has("running"))
            await screen.shows(has("half a sen"))
            screen.process._process.send_signal(signal.SIGINT if status == 130 else signal.SIGTERM)
            assert await screen.ended() == status
    assert screen.lines == ["▶ weather" + " " * 70 + "r", "", "half a sen"]
    assert not screen.cursor_is_hidden


@pytest.mark.parametrize("named", [["r"], []])
async def test_a_run_is_waited_for(client: AsyncClient, start: Start, named: list[str]) -> None:
    async with terminal(start, "tail", *named, "--wait-for-run") as screen:
        await screen.shows(has("waiting for the run"))
        async with client.runs.start("weather", run_id="r"):
            await screen.shows(has("▶ weather"))
        assert await screen.ended() == 0
    assert screen.lines[-1].startswith("✓ succeeded")
