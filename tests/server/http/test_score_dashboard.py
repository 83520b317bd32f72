"""The dashboard's page of scores in a real browser."""

from datetime import timedelta
from pathlib import Path

from playwright.async_api import Browser, expect

from lavant.client import Alert
from server.http.browser import ACTIVE, HOSTILE, Site, a_site, needs_chromium
from server.http.scored import DAY, NOW, TO, WHY, ago, get_json, keep, legend
from support.scores import record, recorded, score
from support.server import connected

pytestmark = needs_chromium


async def test_a_point_leads_to_the_runs_behind_it(scored: Site) -> None:
    page = await scored.open("scores?name=correct", NOW)
    await page.locator(".dot[data-errors]").first.click()
    asked = (await page.locator(".evaluated h2").inner_text()).split(" · ")
    assert asked[:2] == ["correct", "v2"]
    rows = page.locator(".evaluated tbody tr")
    await expect(rows).to_have_count(5)
    failed = page.locator(".evaluated tr[data-failed]")
    await expect(failed).to_contain_text("ValueError")
    await expect(failed).to_contain_text("it broke")
    await expect(page.locator(".evaluated .why", has_text="It says warm")).to_have_text(WHY)
    await expect(rows.first).to_contain_text("judge v2")
    await expect(rows.first).to_contain_text("rule rule")
    # Whoever is sent the address sees the same.
    other = await scored.open(page.url.partition("#/")[2], NOW)
    await expect(other.locator(".evaluated tbody tr")).to_have_count(5)
    assert await other.locator(".evaluated").inner_text() == await page.locator(".evaluated").inner_text()
    await expect(other.locator(".dot[aria-pressed=true]")).to_have_count(1)
    name = await rows.first.locator("a").inner_text()
    await rows.first.locator("a").click()
    await expect(page).to_have_url(f"{scored.url}/#/runs/{name}")


async def test_a_bar_leads_to_all_scores_of_its_time(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    await page.locator(".counted").last.click()
    await expect(page.locator(".evaluated h2")).to_have_text(f"All scores · 4 May 11:30 {TO} 12:00")
    await expect(page.locator(".evaluated tbody tr")).to_have_count(10)
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator(".evaluated")).to_be_hidden()
    await expect(page).to_have_url(f"{scored.url}/#/scores")


async def test_the_address_says_what_is_shown(scored: Site) -> None:
    shown: dict[str, dict[str, str]] = {
        "rule_id=other": {"rule_id": "other"},
        "name=kept&statistic=pass_rate": {"name": "kept"},
        "evaluator=judge&version=2": {"evaluator": "judge", "version": "2"},
        "version=": {"version": ""},
        "run_name=agent+1": {"run_name": "agent 1"},
        "label=team%3Da": {"label": "team=a"},
        "range=6h": {"subject_ended_after": "2026-05-04T06:00:00Z"},
        "range=1h": {"subject_ended_after": "2026-05-04T11:00:00Z"},
        "range=90d": {"subject_ended_after": "2026-02-01T00:00:00Z"},
        "until=2026-05-03T12:00:00Z": {
            "subject_ended_after": "2026-05-02T12:00:00Z",
            "subject_ended_before": "2026-05-03T12:00:00Z",
        },
    }
    page = await scored.open("runs", NOW)
    for query, asked in shown.items():
        (whole,) = (await get_json(scored, "/summary", **{**DAY, **asked}))["groups"]
        await page.goto(f"{scored.url}/#/scores?{query}")
        await expect(page.locator(".legend tbody tr").first).to_be_visible()
        assert sum(int(cells[1].replace(",", "")) for cells in (await legend(page)).values()) == int(whole["count"])
        await expect(page).to_have_url(f"{scored.url}/#/scores?{query}")


async def test_filters_are_chosen_from_what_there_is(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    rows = page.locator(".legend tbody tr")
    await expect(rows).to_have_count(3)
    await page.get_by_label("rule", exact=True).select_option(label="other (245)")
    await expect(rows).to_have_count(2)
    await page.get_by_label("score", exact=True).select_option(label="kept (240)")
    await expect(rows).to_have_count(1)
    await page.get_by_label("a line for each").select_option(label="agent")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("agent 0 · kept")
    await page.get_by_label("Pass rate").check()
    await expect(rows.nth(1)).to_contain_text("100 %")
    await page.get_by_label("agent", exact=True).select_option(label="agent 1 (240)")
    await expect(rows).to_have_count(1)
    await expect(page).to_have_url(
        f"{scored.url}/#/scores?lines=run_name&statistic=pass_rate&rule_id=other&name=kept&run_name=agent+1"
    )
    await page.get_by_label("range").select_option("1h")
    await expect(page.locator(".counted")).to_have_count(5)
    await page.get_by_role("button", name="Earlier").click()
    await expect(page.locator(".time")).to_contain_text(f"4 May 10:00 {TO} 4 May 11:00 UTC")
    await page.go_back()
    await expect(page.locator(".time")).to_contain_text(f"4 May 11:00 {TO} 4 May 12:00 UTC")
    await expect(page.get_by_label("agent", exact=True)).to_have_value("=agent 1")
    await page.get_by_label("label", exact=True).fill("team=none")
    await page.get_by_label("label", exact=True).press("Enter")
    await expect(page.locator(".plot-status")).to_contain_text("No scores here")
    scored.check_quiet()


async def test_a_window_is_checked_against_the_one_before(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    rows = page.locator(".check tbody tr")
    await expect(rows).to_have_count(3)
    assert await page.locator(".check [data-trend] b").all_inner_texts() == ["regressed", "unchanged", "too few"]
    await expect(rows.first).to_contain_text("-0.3")
    await expect(rows.first).to_contain_text("of 234")
    await expect(rows.nth(2)).to_contain_text("neither numbers nor verdicts")


async def test_versions_are_not_mixed_up(tmp_path: Path, browser: Browser) -> None:
    def version(number: int) -> str:
        return "10" if number % 2 else "9"

    scores = [
        recorded(
            "correct",
            number % 2 / 2 + 0.4,
            evaluator="judge",
            version=version(number),
            run=f"r{number}",
            time_ns=ago(1),
        )
        for number in range(80)
    ]
    await keep(tmp_path, scores)
    async with a_site(tmp_path, browser=browser) as site:
        page = await site.open("scores", NOW)
        await expect(page.locator(".warning")).to_contain_text("judge is here in 2 versions (v9, v10)")
        await page.get_by_label("version", exact=True).select_option(label="9 (40)")
        await expect(page.locator(".warning")).to_have_count(0)
        await page.get_by_label("compare with").select_option("10")
        await expect(page.locator(".check [data-trend] b")).to_have_text("regressed")
        await expect(page).to_have_url(f"{site.url}/#/scores?version=9&against=10")


async def test_hostile_scores_stay_text(tmp_path: Path, browser: Browser) -> None:
    name = HOSTILE.replace("\x00", "").replace("\r\n", "")
    scores = []
    for value in (None, HOSTILE, 0.5):
        told = recorded(name, value, agent=name, evaluator=name, version=name, time_ns=ago(1), labels={name: name})
        told.score.explanation = HOSTILE
        if value is None:
            told.score.error.message = told.score.error.type = HOSTILE
        scores.append(told)
    await keep(tmp_path, scores)
    async with a_site(tmp_path, browser=browser) as site:
        page = await site.open("scores?lines=run_name", NOW)
        await page.locator(".dot").first.press("Enter")
        await expect(page.locator(".evaluated tbody tr")).to_have_count(3)
        await page.get_by_text("As a table").click()
        await page.locator(".dot").first.hover()
        for part in (
            ".evaluated .why",
            ".evaluated .fault",
            ".readout",
            ".numbers td",
            ".legend tbody th",
            ".check tbody th",
        ):
            await expect(page.locator(part).first).to_contain_text("<img src=x onerror=")
        await expect(page.locator(ACTIVE)).to_have_count(0)
        assert await page.evaluate("document.title") == "Scores · lavant"
        site.check_quiet()


async def test_a_run_shows_what_was_said_of_it(scored: Site) -> None:
    run = await scored.client.runs.create("agent 0", run_id="r0")
    async with connected(scored.process.target) as stubs:
        said = score("helpful", value=True, evaluator="ann")
        said.explanation = HOSTILE
        await record(stubs, "feedback", said, run.id)
    page = await scored.open(f"runs/{run.id}")
    rows = page.locator(".run-scores tbody tr")
    await expect(rows).to_have_count(4)
    helpful = rows.filter(has_text="helpful")
    await expect(helpful).to_contain_text("feedback")
    await expect(helpful).to_contain_text("ann")
    await expect(helpful).to_contain_text("passed")
    await expect(helpful.locator(".why")).to_contain_text("<img src=x onerror=")
    await expect(rows.filter(has_text="correct")).to_contain_text("rule rule")
    await expect(page.locator(ACTIVE)).to_have_count(0)
    scored.check_quiet()


async def test_without_scores_the_page_says_so(site: Site) -> None:
    page = await site.open("scores")
    await expect(page.locator(".plot-status")).to_contain_text("No scores here")
    await expect(page.locator(".rules")).to_contain_text("No rules yet")
    await expect(page.locator(".check")).to_contain_text("There is nothing to compare.")
    await expect(page.locator(".chart")).to_be_hidden()
    site.check_quiet()


async def test_a_failure_is_shown_and_can_be_overcome(scored: Site) -> None:
    page = await scored.open("scores", NOW)
    await expect(page.locator(".dot").first).to_be_visible()
    await scored.process.kill()
    await page.get_by_label("range").select_option("7d")
    await expect(page.locator(".plot-status .fault")).to_be_visible()
    await expect(page.locator(".chart")).to_be_hidden()
    await scored.start()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator(".counted")).to_have_count(12)
    await expect(page.locator(".plot-status .fault")).to_have_count(0)


async def test_failures_of_evaluators_stand_beside_the_scores(tmp_path: Path, browser: Browser) -> None:
    before = [recorded("quality", 0.5 + number % 2 / 10, run=f"b{number}", time_ns=ago(30)) for number in range(40)]
    after = [recorded("quality", None if number % 4 else 0.5, run=f"a{number}", time_ns=ago(1)) for number in range(40)]
    await keep(tmp_path, [*before, *after])
    async with a_site(tmp_path, browser=browser) as site:
        page = await site.open("scores", NOW)
        row = page.locator(".check tbody tr")
        await expect(row.locator(".errors")).to_have_text("75 % failed")
        await expect(row.locator(".more-errors")).to_have_text("more failures, and not by chance")
        await expect(row.locator("[data-trend] b")).to_have_text("too few")
        site.check_quiet()


async def test_an_alert_that_cannot_fire_says_why(tmp_path: Path, browser: Browser) -> None:
    await keep(tmp_path, [recorded("quality", 0.5, rule_id="watched")])
    async with a_site(tmp_path, browser=browser) as site:
        minutes = timedelta(minutes=5)
        rude = Alert(name="typo", score_name="qality", below=0.5, window=minutes)
        await site.client.rules.create("watched", alerts=[rude])
        page = await site.open("scores")
        cell = page.locator('tr[data-rule="watched"] [data-verdict=worse]')
        await expect(cell).to_contain_text("cannot fire: no score of rule watched is named qality, only quality")
        site.check_quiet()
