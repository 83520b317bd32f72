"""The dashboard in a real browser: Debian's Chromium."""

import re

from grpc import aio
from playwright.async_api import expect

from lavant.client import AsyncRunProducer, Usage
from lavant.v1 import event_pb2
from server.http.browser import ACTIVE, HOSTILE, Site, needs_chromium
from support.otlp import TRACE_ID, a_trace, export

WORDS = [f"word{number} " for number in range(300)]

pytestmark = needs_chromium


async def test_text_appears_while_the_agent_writes(site: Site) -> None:
    async with site.client.runs.start("weather-agent", labels={"team": "weather"}, model="gpt-5") as run:
        page = await site.open(f"runs/{run.id}")
        await run.text("It is ")
        await expect(page.locator(".message .text")).to_have_text("It is")
        await run.text("cold.")
        await expect(page.locator(".message .text")).to_have_text("It is cold.")
        await expect(page.locator("h1 .badge")).to_have_text("running")
        async with run.step("look"), run.tool("search", {"q": "Oslo"}) as tool:
            await expect(page.locator(".call[data-state=running] b")).to_have_text("search")
            tool.result = ["-3 °C"]
        await expect(page.locator(".call[data-state=succeeded]")).to_be_visible()
        run.usage = Usage(input_tokens=900, output_tokens=100, cost_usd=0.25)
    await expect(page.locator("h1 .badge")).to_have_text("succeeded")
    await expect(page.locator("#state")).to_have_text("ended")
    await expect(page.locator(".figures")).to_contain_text("$0.25")


async def test_a_killed_server_leaves_the_page_complete_and_nothing_doubled(site: Site) -> None:
    async with site.client.runs.start("talker", on_error="raise") as run:
        page = await site.open(f"runs/{run.id}")
        for word in WORDS[:150]:
            await run.text(word)
        await expect(page.locator(".message .text")).to_contain_text("word149")
        await site.process.kill()
        await expect(page.locator("#state")).to_have_text("reconnecting")
        for word in WORDS[150:]:
            await run.text(word)
        await site.start()
        await expect(page.locator(".message .text")).to_contain_text("word299")
        shown = await page.locator(".message .text").inner_text()
        assert shown.split() == "".join(WORDS).split()


async def test_a_page_that_was_refused_for_a_while_comes_back_where_it_was(site: Site) -> None:
    async with site.client.runs.start("talker", on_error="raise") as run:
        page = await site.open(f"runs/{run.id}")
        positions: list[str | None] = []
        page.on("request", lambda request: positions.append(request.headers.get("last-event-id")))
        await run.text("before ")
        await expect(page.locator(".message .text")).to_contain_text("before")
        await site.process.kill()
        await site.refuse()
        await run.text("after")
        await site.start()
        await expect(page.locator(".message .text")).to_have_text("before after")
    assert any(positions)


async def everything_hostile(run: AsyncRunProducer) -> None:
    async with run.step(HOSTILE, input=HOSTILE) as step:
        async with run.message(model=HOSTILE) as message:
            await message.reasoning(HOSTILE)
            await message.text(HOSTILE)
        try:
            async with run.tool(HOSTILE, {HOSTILE: HOSTILE}) as tool:
                await tool.output(HOSTILE)
                raise LookupError(HOSTILE)
        except LookupError:
            pass
        step.output = HOSTILE
    await run.error(HOSTILE)
    await run.progress(HOSTILE, 1, 2)
    await run.artifact(HOSTILE, uri="javascript:document.title='owned'")
    run.output = HOSTILE


async def test_hostile_text_stays_text(site: Site) -> None:
    name = HOSTILE.replace("\x00", "").replace("\r\n", "")
    async with site.client.runs.start(name, labels={name[:100]: name}, input=HOSTILE) as run:
        await everything_hostile(run)
    row = event_pb2.RowFinished(row_id=HOSTILE, iteration=1, input_json='"<b>x</b>"')
    score = row.scores.add(name=HOSTILE, label=HOSTILE, explanation=HOSTILE)
    score.error.message = HOSTILE
    async with site.client.runs.start(name, kind="evaluation") as evaluation:
        await evaluation.publish(event_pb2.Event(row_finished=row))
    for path in ("runs", f"runs/{run.id}", "evaluations", f"evaluations/{evaluation.id}"):
        page = await site.open(path)
        await expect(page.locator("main")).to_contain_text("<img src=x onerror=")
        for closed in await page.locator("summary").all():
            await closed.click()
        for step in await page.locator(".step").all():
            await step.click()
        await expect(page.locator(ACTIVE)).to_have_count(0)
        assert await page.evaluate("document.title !== 'owned'")


async def test_two_tabs_show_the_same(site: Site) -> None:
    async with site.client.runs.start("talker") as run:
        first, second = await site.open(f"runs/{run.id}"), await site.open(f"runs/{run.id}")
        for word in WORDS:
            await run.text(word)
    for page in (first, second):
        await expect(page.locator("#state")).to_have_text("ended")
        assert (await page.locator(".message .text").inner_text()).split() == "".join(WORDS).split()


async def test_the_list_is_live(site: Site) -> None:
    page = await site.open("runs")
    await expect(page.locator(".nothing")).to_have_text("No runs yet that match.")
    async with site.client.runs.start("first", labels={"team": "weather"}):
        row = page.locator("tbody tr")
        await expect(row).to_contain_text("running")
        await expect(row).to_contain_text("team=weather")
    await expect(row).to_contain_text("succeeded")
    await site.client.runs.create("second")
    await expect(row).to_have_count(2)
    await expect(row.first).to_contain_text("second")
    await page.select_option("select", "succeeded")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("first")
    await page.get_by_role("link", name="first").click()
    await expect(page.locator("h1")).to_contain_text("first")


async def test_steps_are_nested_and_walked_with_the_keyboard(site: Site) -> None:
    async with site.client.runs.start("agent") as run:
        async with run.step("outer", "agent"), run.step("inner", input={"n": 1}) as inner:
            inner.output = "inner's output"
        async with run.step("tried again"):
            pass
        async with run.step("last"):
            pass
    page = await site.open(f"runs/{run.id}")
    steps = page.get_by_role("treeitem")
    await expect(steps).to_have_count(4)
    assert [await step.get_attribute("aria-level") for step in await steps.all()] == ["1", "2", "1", "1"]
    await steps.first.focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator(".timeline .details")).to_contain_text("inner's output")


async def test_steps_that_come_before_their_parents_move_below_them(site: Site) -> None:
    async with aio.insecure_channel(site.process.target) as channel:
        await export(channel, a_trace()[1:])
        page = await site.open(f"runs/{TRACE_ID.hex()}")
        steps = page.get_by_role("treeitem")
        await expect(steps).to_have_count(5)
        await expect(steps.filter(has_text="search")).to_have_attribute("aria-level", "1")
        await export(channel, a_trace()[:1])
        await expect(steps).to_have_count(6)
        await expect(steps.filter(has_text="search")).to_have_attribute("aria-level", "2")
    assert [await step.get_attribute("aria-level") for step in await steps.all()] == ["1", "2", "3", "2", "3", "2"]
    await expect(steps.first).to_contain_text("weather")


async def test_the_timeline_shows_tool_calls_in_steps_and_beside_them(site: Site) -> None:
    """Each with its arguments, its result or error, its outcome and how long it took, also while it is at work."""
    async with site.client.runs.start("agent") as run:
        page = await site.open(f"runs/{run.id}")
        rows, details = page.get_by_role("treeitem"), page.locator(".timeline .details")
        async with run.step("think", "agent"):
            async with run.tool("search", {"q": "Oslo"}) as search:
                await expect(rows.filter(has_text="search")).to_have_attribute("data-state", "running")
                await rows.filter(has_text="search").click()
                await expect(details).to_contain_text("Oslo")
                search.result = ["-3 °C"]
            await expect(details).to_contain_text("-3 °C")
            try:
                async with run.tool("post", {"to": "Bergen"}):
                    raise PermissionError("nobody may post")
            except PermissionError:
                pass
        async with run.tool("alone", {"n": 1}) as alone:
            alone.result = {"n": 2}
        async with run.step("own", "tool"), run.tool("own", {"whole": True}) as own:
            own.result = "all of its step"
    await expect(rows).to_have_count(5)
    found = [[await row.get_attribute(name) for name in ("aria-level", "data-state")] for row in await rows.all()]
    assert found == [["1", "succeeded"], ["2", "succeeded"], ["2", "failed"], ["1", "succeeded"], ["1", "succeeded"]]
    shown = {"post": ["Bergen", "nobody may post"], "alone": ['"n": 1', '"n": 2'], "own": ["whole", "all of its step"]}
    for name, texts in shown.items():
        await rows.filter(has_text=name).click()
        for text in texts:
            await expect(details).to_contain_text(text)
    for row in await rows.all():
        await expect(row.locator(".took")).to_have_text(re.compile(r"\d+ ?m?s"))


async def test_fifty_thousand_events(site: Site) -> None:
    async with site.client.runs.start("long") as run:
        for number in range(6_000):
            async with run.step(f"step {number}"), run.tool("work", number):
                pass
        for word in range(26_000):
            await run.text(f"w{word} ")
    page = await site.open(f"runs/{run.id}")
    await expect(page.locator("#state")).to_have_text("ended", timeout=60_000)
    await expect(page.locator(".figures")).to_contain_text("50,00")
    assert str(await page.locator(".message .text").text_content()).split()[-1] == "w25999"
    await expect(page.locator(".step")).to_have_count(500)
    await page.locator(".timeline .more").click()
    await expect(page.locator(".step")).to_have_count(1_000)
    await page.locator(".earlier").click()
    await expect(page.locator("details.call")).to_have_count(999)


async def test_an_evaluation_with_its_rows_and_a_baseline(site: Site) -> None:
    async def evaluation(verdicts: list[bool]) -> str:
        async with site.client.runs.start("weather", kind="evaluation") as run:
            for number, passed in enumerate(verdicts):
                row = event_pb2.RowFinished(row_id=f"case {number}", iteration=1, output_json=f'"output {number}"')
                row.scores.add(name="correct", passed=passed, explanation=f"why {number}")
                await run.publish(event_pb2.Event(row_finished=row))
        return run.id

    before = await evaluation([True, True, False, True])
    page = await site.open(f"evaluations/{await evaluation([True, False, True, False])}")
    await expect(page.locator(".scores")).to_contain_text("2 of 4 passed")
    rows = page.locator(".rows tbody tr")
    await expect(rows).to_have_count(4)
    await page.get_by_role("button", name="correct", exact=True).click()
    await expect(rows.first).to_contain_text("failed")
    await page.get_by_role("button", name="case 1").click()
    await expect(page.locator(".details")).to_contain_text("why 1")
    await page.select_option("select", before)
    await expect(page.locator(".comparison [data-verdict]")).to_have_text("worse")
    await page.get_by_role("button", name="2 worse").click()
    await expect(rows).to_have_count(2)


async def test_a_plain_event_source_resumes_by_itself(site: Site) -> None:
    page = await site.open("runs")
    async with site.client.runs.start("talker") as run:
        await page.evaluate(
            """(path) => {
                window.seen = [];
                window.source = new EventSource(path);
                source.addEventListener("text_delta", (event) => {
                    seen.push(JSON.parse(event.data).text_delta.text);
                    document.title = seen.join(",");
                });
                source.addEventListener("error", () => {
                    if (source.readyState === EventSource.CLOSED) document.title = "closed: " + seen.join(",");
                });
            }""",
            f"/api/v1/runs/{run.id}/stream?consumer=plain&wait_for_run=true",
        )
        await run.text("a")
        await expect(page).to_have_title("a")
        await site.process.kill()
        await site.start()
        await run.text("b")
        await expect(page).to_have_title("a,b")
    await expect(page).to_have_title("closed: a,b")
