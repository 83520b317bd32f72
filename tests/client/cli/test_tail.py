"""`lavant tail` into a pipe: the real command, a real server."""

import asyncio
import json
import os
import re
import signal

import pytest

from client.cli.conftest import Lavant, Start
from lavant.client import AsyncClient, Usage
from lavant.v1.run_pb2 import RunState
from support.calls import append, create
from support.events import custom, run_finished, run_started
from support.server import Server

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J back\b\b\x00 \u202etxt\u2066 two\r\nlines"


async def read_until(pipe: int, expected: str) -> str:
    """What a pipe gave up to and with a text."""
    given = ""
    while expected not in given:
        chunk = await asyncio.to_thread(os.read, pipe, 65536)
        assert chunk, given
        given += chunk.decode()
    return given


async def test_text_is_shown_before_the_run_ends(client: AsyncClient, start: Start) -> None:
    reading, writing = os.pipe()
    async with client.runs.start("weather", run_id="r") as run:
        process = await start("tail", "r", stdout=writing, PYTHONUNBUFFERED="")
        os.close(writing)
        await run.text("It ")
        assert (await read_until(reading, "It")).startswith("▶ weather  r\n")
        await run.text("is cold")
        await read_until(reading, "is cold")
        async with run.tool("search", {"q": "Oslo"}):
            await read_until(reading, '→ search  q="Oslo"\n')
        assert "✓ search  " in await read_until(reading, "\n")
    assert "✓ succeeded after" in await read_until(reading, "succeeded after")
    os.close(reading)
    assert (await process.ended()).status == 0


@pytest.mark.parametrize(
    ("state", "status", "last"),
    [
        (RunState.RUN_STATE_SUCCEEDED, 0, "✓ succeeded"),
        (RunState.RUN_STATE_FAILED, 10, "✗ failed"),
        (RunState.RUN_STATE_CANCELLED, 11, "■ cancelled"),
        (RunState.RUN_STATE_TIMED_OUT, 12, "✗ timed out"),
        (RunState.RUN_STATE_ABANDONED, 13, "✗ abandoned"),
    ],
)
async def test_the_exit_status_is_that_of_the_outcome(
    server: Server, lavant: Lavant, state: "RunState.ValueType", status: int, last: str
) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started(), run_finished(state)])
    for flags in ([], ["--types", "custom"], ["--no-follow"]):
        ended = await lavant("tail", "run", *flags)
        assert (ended.status, ended.err) == (status, "")
        assert ended.out.splitlines()[-1] == last
        assert ("  ValueError: it broke" in ended.out) == (status != 0)
    told = await lavant("tail", "run", "--json", "--types", "custom")
    assert (told.status, told.out, told.err) == (status, "", "")


async def test_the_last_line_has_duration_tokens_and_cost(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        run.usage = Usage(input_tokens=1204, output_tokens=96, cost_usd=0.0123)
    last = (await lavant("tail", "r")).out.splitlines()[-1]
    assert re.fullmatch(r"✓ succeeded after \d+ ms  1,204 tokens in · 96 out · \$0\.0123", last)


async def test_a_tail_interrupted_resumes_with_its_token(client: AsyncClient, start: Start, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        process = await start("tail", "r")
        async with run.message():
            await run.text("one\n")
            while await process.line() != "one":
                pass
            process.interrupt()
            ended = await process.ended()
            assert ended.status == 130
            told = re.fullmatch(r"lavant: resume with --from (\S+)\n", ended.err)
            assert told is not None
        await run.text("two\n")
    resumed = await lavant("tail", "r", "--from", told[1])
    assert resumed.status == 0
    assert "two" in resumed.out
    assert "one" not in resumed.out


async def test_a_tail_killed_resumes_with_the_next_sequence(client: AsyncClient, start: Start, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        for number in range(5):
            await run.custom("n", number)
        process = await start("tail", "r", "--json")
        seen = [await process.line() for _ in range(3)]
        process.kill()
        assert (await process.ended()).status == -signal.SIGKILL
        await run.custom("n", 5)
    rest = await lavant("tail", "r", "--json", "--from", str(int(json.loads(seen[-1])["sequence"]) + 1))
    whole = await lavant("tail", "r", "--json")
    assert seen + rest.out.splitlines() == whole.out.splitlines()
    assert len(whole.out.splitlines()) == 8


async def test_sigterm_prints_how_to_resume_too(client: AsyncClient, start: Start) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        await run.custom("n")
        process = await start("tail", "r")
        while not (await process.line()).startswith("· n"):
            pass
        process._process.send_signal(signal.SIGTERM)
        ended = await process.ended()
    assert ended.status == 143
    assert ended.err.startswith("lavant: resume with --from ")


async def test_events_before_a_sequence_give_its_context(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run, run.step("scout", "agent"), run.tool("search"):
        await run.flush()
        assert run.last_receipt is not None
        last = run.last_receipt.last_sequence
    lines = (await lavant("tail", "r", "--from", str(last + 1))).out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:2]] == ["┄ scout"]
    assert lines[2].startswith("  ✓ search  ")


async def test_from_now_shows_what_is_new(client: AsyncClient, start: Start) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        await run.custom("old")
        await run.flush()
        process = await start("tail", "r", "--from", "now")
        assert await process.line() == "▶ weather  r"
        # Its header may come before its stream is open.
        shown = asyncio.create_task(process.line())
        count = 0
        while not shown.done():
            count += 1
            await run.custom(f"new{count}")
            await run.flush()
        assert (await shown).startswith("· new")
    out = (await process.ended()).out
    assert "old" not in out


async def test_no_follow_stops_at_what_is_recorded(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        await run.custom("n", 1)
        await run.flush()
        ended = await lavant("tail", "r", "--no-follow")
        assert ended.status == 0
        assert ended.out.splitlines()[1:] == ["· n  1", "", "… running  2 events so far"]
        token = ended.err.removeprefix("lavant: resume with --from ").strip()
        await run.custom("n", 2)
        await run.flush()
        more = await lavant("tail", "r", "--no-follow", "--json", "--from", token)
        assert [json.loads(line)["custom"] for line in more.out.splitlines()] == [{"name": "n", "value_json": "2"}]


async def test_json_lines_are_the_events(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        await run.text(HOSTILE)
    ended = await lavant("tail", "r", "--json")
    assert all(character >= " " or character == "\n" for character in ended.out)
    assert not {"\x9b", "\u202e", "\x7f"} & set(ended.out)
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [event["sequence"] for event in events] == ["1", "2", "3", "4", "5"]
    assert events[2]["text_delta"]["text"] == HOSTILE


async def test_only_some_types(client: AsyncClient, lavant: Lavant) -> None:
    async with client.runs.start("weather", run_id="r") as run:
        await run.text("hello")
        await run.error("watch out")
    ended = await lavant("tail", "r", "--types", "error_reported, custom", "--json")
    assert [list(json.loads(line))[-1] for line in ended.out.splitlines()] == ["error_reported"]
    whole = await lavant("tail", "r", "--deltas", "none")
    assert "\nhello\n" in whole.out


async def test_without_a_run_the_newest_at_work_is_shown(client: AsyncClient, lavant: Lavant, start: Start) -> None:
    async with client.runs.start("ended"):
        pass
    nothing = await lavant("tail")
    assert (nothing.status, nothing.out, nothing.err.count("\n")) == (1, "", 1)
    assert nothing.err.startswith("lavant: no run is active: ")
    async with client.runs.start("older") as older:
        await older.flush()
        async with client.runs.start("newer", run_id="r") as newer:
            await newer.flush()
            process = await start("tail")
            assert await process.line() == "▶ newer  r"
            process.interrupt()
            await process.ended()


async def test_a_run_may_be_waited_for(client: AsyncClient, lavant: Lavant, start: Start) -> None:
    unknown = await lavant("tail", "r")
    assert (unknown.status, unknown.err.count("\n")) == (1, 1)
    process = await start("tail", "r", "--wait-for-run")
    async with client.runs.start("weather", run_id="r"):
        assert await process.line() == "▶ weather  r"
    assert (await process.ended()).status == 0


async def test_a_reader_that_leaves_is_no_error(server: Server, start: Start) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started(), *[custom() for _ in range(900)], run_finished()])
    reading, writing = os.pipe()
    os.close(reading)
    process = await start("tail", "run", stdout=writing)
    os.close(writing)
    ended = await process.ended()
    assert (ended.status, ended.err) == (141, "")


@pytest.mark.parametrize(
    "flags", [["--from", "nonsense"], ["--from", "t~0~0"], ["--types", "nonsense"], ["--deltas", "some"]]
)
async def test_wrong_usage_is_reported_on_one_line(lavant: Lavant, flags: list[str]) -> None:
    ended = await lavant("tail", "r", *flags)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)


async def test_hostile_text_is_neutral(client: AsyncClient, lavant: Lavant) -> None:
    with pytest.raises(ValueError, match="red"):  # noqa: PT012
        async with client.runs.start("weather", run_id="r", input=HOSTILE) as run:
            await run.text(HOSTILE)
            await run.reasoning(HOSTILE)
            async with run.step("scout", "agent"), run.tool("search", {HOSTILE: HOSTILE}) as tool:
                await tool.output(HOSTILE)
                tool.result = HOSTILE
            await run.custom("a.b", HOSTILE)
            await run.state(HOSTILE)
            await run.artifact(HOSTILE, uri="x:" + HOSTILE)
            await run.error(HOSTILE)
            raise ValueError(HOSTILE)
    out = (await lavant("tail", "r")).out
    assert not [character for character in out if character != "\n" and not character.isprintable()]
    assert out.count("�[31mred") >= 9
