"""The chart of scores in a real browser."""

from playwright.async_api import expect

from server.http.browser import Site, needs_chromium
from server.http.scored import DAY, NOW, TO, get_json, legend

pytestmark = needs_chromium


async def test_the_chart_shows_what_the_api_gives(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    await expect(page.locator(".legend tbody tr")).to_have_count(3)
    groups = (await get_json(scored, "/summary", group_by=["name", "version"], **DAY))["groups"]
    shown = await legend(page)
    for group in groups:
        line = " · ".join(filter(None, (group["name"], f"v{group['version']}" if "version" in group else "")))
        mean = f"{round(group['mean'], 3):g}" if "mean" in group else TO
        assert shown[line][:3] == [mean, group["count"], group.get("error_count", "0")]
    await expect(page.locator(".legend")).to_contain_text("cold 3, warm 2")
    points = (await get_json(scored, "/summary", group_by=["name", "version"], bucket="30m", **DAY))["groups"]
    await expect(page.locator(".dot")).to_have_count(len(points))
    await expect(page.locator(".counted")).to_have_count(48)
    correct = next(point for point in points if point["name"] == "correct" and "error_count" in point)
    at = correct["start_time"][11:16]
    label = f"{round(correct['mean'], 3):g}, {correct['count']} scores, 1 failed"
    await expect(
        page.locator(f".dot[aria-label*='correct'][aria-label*='{at} '][aria-label$='{label}']")
    ).to_have_count(1)
    await page.get_by_text("As a table").click()
    await expect(page.locator(".numbers tbody tr")).to_have_count(len(points))
    await expect(page).to_have_title("Scores · lavant")
    scored.check_quiet()


async def test_each_statistic_is_the_one_of_the_api(scored: Site) -> None:
    page = await scored.open("scores?rule_id=rule", NOW)
    asked = {**DAY, "rule_id": "rule", "percentile": ["50", "95"]}
    (whole,) = (await get_json(scored, "/summary", **asked))["groups"]
    (latest, *_) = reversed((await get_json(scored, "/summary", bucket="30m", **asked))["groups"])
    for name in ("Mean", "p50", "p95"):
        in_all, at_last = (
            f"{round(group['mean'] if name == 'Mean' else group['percentiles'][name == 'p95'], 3):g}"
            for group in (whole, latest)
        )
        await page.get_by_label(name, exact=True).check()
        await expect(page.locator(".legend td").first).to_have_text(in_all)
        await expect(page.locator(f".dot[aria-label*=': {name} {at_last}, ']").last).to_be_visible()
    await page.get_by_label("Pass rate").check()
    await expect(page.locator(".plot-status")).to_contain_text("None of these scores is a verdict")
    await expect(page.locator(".legend td").first).to_have_text(TO)


async def test_a_line_is_put_away_and_back(scored: Site) -> None:
    page = await scored.open("scores?lines=label:team", NOW)
    await expect(page.locator(".legend")).to_contain_text("team=a · correct · v2")
    dots = page.locator(".dot[aria-label^='team=a · correct']")
    await expect(dots).to_have_count(48)
    line = page.get_by_role("checkbox", name="team=a · correct · v2")
    await line.uncheck()
    await expect(dots).to_have_count(0)
    await line.press(" ")
    await expect(dots).to_have_count(48)
    await dots.last.press("Enter")
    await expect(page.locator(".evaluated tbody tr")).to_have_count(2)
    assert set(await page.locator(".evaluated .label").all_inner_texts()) == {"team=a"}


async def test_scores_without_a_label_have_a_line_of_their_own(scored: Site) -> None:
    page = await scored.open("scores?lines=label:team&name=tone&range=90d", NOW)
    await expect(page.locator(".legend tbody tr")).to_have_count(2)
    await page.locator(".dot[aria-label^='no team · tone']").last.press("Enter")
    await expect(page.locator(".evaluated tbody td:nth-child(3)")).to_have_text(["cold"] * 4)


async def test_the_chart_is_walked_with_the_keyboard(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    await page.locator(".legend input").first.focus()
    await page.keyboard.press("Shift+Tab")
    name = "document.activeElement.getAttribute('aria-label')"
    walk = [("End", "kept"), ("ArrowLeft", "kept"), ("ArrowUp", "correct"), ("Home", "correct"), ("ArrowDown", "kept")]
    await page.locator(".dot[aria-label^=kept]").first.focus()
    for key, line in walk:
        await page.keyboard.press(key)
        assert str(await page.evaluate(name)).startswith(line)
    assert f"3 May 12:00 {TO} 12:30" in str(await page.evaluate(name))
    await expect(page.locator(".readout")).to_contain_text(f"3 May 12:00 {TO} 12:30")
    await page.keyboard.press("Enter")
    await expect(page.locator(".evaluated h2")).to_have_text(f"kept · 3 May 12:00 {TO} 12:30")
    assert await page.evaluate("document.activeElement.className") == "evaluated"
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator(".evaluated")).to_be_hidden()
    assert str(await page.evaluate(name)).startswith("kept, 3 May 12:00")
    assert await page.locator("svg [tabindex='0']").count() == 1


async def test_a_narrow_page_does_not_scroll_sideways(scored: Site) -> None:
    page = await scored.open("scores?name=correct", NOW)
    await page.locator(".dot[data-errors]").first.press("Enter")
    await expect(page.locator(".evaluated tbody tr")).to_have_count(5)
    await page.get_by_text("As a table").click()
    for width in (320, 390, 700, 1_000):
        await page.set_viewport_size({"width": width, "height": 800})
        await expect(page.locator(".chart")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_axes_have_round_marks(site: Site) -> None:
    page = await site.open("runs")
    for values, marks in (
        ([], [0, 0.25, 0.5, 0.75, 1]),
        ([0.2, 1], [0, 0.25, 0.5, 0.75, 1]),
        ([3.7, 5], [0, 2, 4, 6]),
        ([-0.4, 0.9], [-0.5, 0, 0.5, 1]),
        ([1234], [0, 500, 1000, 1500]),
    ):
        shown = await page.evaluate(
            "(values) => import('/static/scores/chart.js').then((axis) => axis.valueMarks(values))", values
        )
        assert shown == marks
