"""Signing in to the dashboard, and pages that read with an access token, in a real browser."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from lavant.v1.access_service_pb2 import CreateKeyRequest, Key, RevokeKeyRequest
from server.http.browser import Site, a_site, needs_chromium
from support.server import connected

pytestmark = needs_chromium

READ = """(url) => {
    const shown = document.body.dataset;
    Object.assign(shown, { text: "", opened: 0, closed: false });
    const source = new EventSource(url);
    source.onerror = () => { shown.closed = source.readyState === EventSource.CLOSED; };
    source.addEventListener("opened", () => { shown.opened = Number(shown.opened) + 1; });
    source.addEventListener("text_delta", (event) => { shown.text += JSON.parse(event.data).text_delta.text; });
    source.addEventListener("end", (event) => {
        if (JSON.parse(event.data).reconnect) return;
        source.close();
        shown.closed = true;
    });
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(tmp_path: Path, browser: Browser) -> AsyncIterator[Site]:
    """A browser on the dashboard of a server that wants credentials."""
    async with a_site(tmp_path, "--auth", "keys", "--init-key", browser=browser) as site:
        yield site


async def sign_in(page: Page, key: str) -> None:
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Sign in").click()


async def test_dashboard_asks_for_a_key_and_shows_whose_data_it_shows(guarded: Site) -> None:
    async with guarded.client.runs.start("weather-agent") as run:
        page = await guarded.open("runs")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await expect(page.locator("main")).not_to_contain_text("weather-agent")
        await sign_in(page, "lvk_abcdefghijkl_wrong")
        await expect(page.get_by_role("alert")).to_contain_text("not valid")
        await sign_in(page, guarded.key)
        await expect(page.locator("tbody tr")).to_contain_text("weather-agent")
        await expect(page.locator("#principal")).to_have_text("default · key:admin")
        await page.get_by_role("link", name="weather-agent").click()
        await run.text("It is cold.")
        await expect(page.locator(".message .text")).to_have_text("It is cold.")
        await guarded.process.kill()
        await expect(page.locator("#state")).to_have_text("reconnecting")
        await run.text(" And dry.")
        await guarded.start()
        await expect(page.locator(".message .text")).to_have_text("It is cold. And dry.")
        kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
        assert guarded.key not in kept + "".join(guarded.asked)
        assert kept.startswith('[{},{},"",')


async def test_signing_out_hides_everything_and_forgets_the_key(guarded: Site) -> None:
    async with guarded.client.runs.start("weather-agent"):
        pass
    page = await guarded.open("runs")
    await expect(page.locator("#sign-out")).to_be_hidden()
    await sign_in(page, guarded.key)
    await expect(page.locator("tbody tr")).to_contain_text("weather-agent")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.locator("body")).not_to_contain_text("weather-agent")
    await expect(page.locator("#principal")).to_have_text("")
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_revoked_key_signs_the_page_out(guarded: Site) -> None:
    async with connected(guarded.process.target, bearer=guarded.key) as admin:
        created = await admin.access.CreateKey(CreateKeyRequest(key=Key(name="reader", scopes=["runs:read"])))
        async with guarded.client.runs.start("weather-agent") as run:
            page = await guarded.open(f"runs/{run.id}")
            await sign_in(page, created.secret)
            await run.text("It is cold.")
            await expect(page.locator(".message .text")).to_have_text("It is cold.")
            await admin.access.RevokeKey(RevokeKeyRequest(key_id=created.key.key_id))
            await expect(page.get_by_role("alert")).to_contain_text("revoked")
            await expect(page.locator("body")).not_to_contain_text("It is cold.")


async def test_open_server_asks_for_nothing(site: Site) -> None:
    page = await site.open("runs")
    await expect(page.locator("#principal")).to_have_text("default · anonymous")
    await expect(page.locator("#sign-out")).to_be_hidden()
    site.check_quiet()


async def test_event_source_with_an_access_token_resumes_over_a_restart(guarded: Site) -> None:
    words = [f"word{number} " for number in range(40)]
    page = await guarded.open("runs")
    body = page.locator("body")
    async with guarded.client.runs.start("talker", on_error="raise") as run:
        created = await guarded.client.access.create_token(run_id=run.id, name="user-1")
        await page.evaluate(READ, f"{guarded.url}/api/v1/runs/{run.id}/stream?access_token={created.token}")
        for word in words[:20]:
            await run.text(word)
        await expect(body).to_have_attribute("data-text", "".join(words[:20]))
        await guarded.process.kill()
        for word in words[20:]:
            await run.text(word)
        await guarded.start()
        await expect(body).to_have_attribute("data-text", "".join(words))
    await expect(body).to_have_attribute("data-closed", "true")
    await expect(body).to_have_attribute("data-opened", "2")
    await expect(body).to_have_attribute("data-text", "".join(words))


async def test_event_source_stops_once_its_token_has_expired(guarded: Site) -> None:
    page = await guarded.open("runs")
    body = page.locator("body")
    async with guarded.client.runs.start("talker") as run:
        created = await guarded.client.access.create_token(run_id=run.id, lifetime=2)
        await page.evaluate(READ, f"{guarded.url}/api/v1/runs/{run.id}/stream?access_token={created.token}")
        await expect(body).to_have_attribute("data-opened", "1")
        await expect(body).to_have_attribute("data-closed", "true")  # answered with 401: the page needs another token
