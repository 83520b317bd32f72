"""What pages of other sites can make a browser do here: nothing, also not without an Origin."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from server.http.browser import Site, needs_chromium
from support.calls import create
from support.server import Server, serving
from support.web import serving_web

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
STREAM = "/api/v1/runs/run/stream?consumer=ui&take_over=true"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
async def test_requests_of_foreign_sites_are_refused(web: httpx.AsyncClient, server: Server, site: str) -> None:
    await create(server.stubs)
    for path in ("/api/v1/runs", STREAM, "/static/app.js", "/"):
        answer = await web.get(path, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403, path
        assert f"Sec-Fetch-Site: {site}" in answer.json()["error"]["message"]


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_requests_of_own_pages_and_typed_addresses_are_accepted(web: httpx.AsyncClient, site: str) -> None:
    for path in ("/api/v1/runs", "/static/app.js", "/"):
        assert (await web.get(path, headers={"Sec-Fetch-Site": site})).status_code == 200


async def test_links_lead_to_pages_and_not_to_the_api(web: httpx.AsyncClient) -> None:
    for path, more, status in (
        ("/", NAVIGATION, 200),
        ("/api/v1/runs", NAVIGATION, 403),
        ("/", {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}, 403),
        ("/", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
    ):
        answer = await web.get(path, headers={"Sec-Fetch-Site": "cross-site", **more})
        assert answer.status_code == status, (path, more)


async def test_pages_of_listed_origins_may_read_from_other_sites(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, http="127.0.0.1:0", http_origins=["https://ui.example"]) as server,
        httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web,
    ):
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await web.get("/api/v1/runs", headers={**foreign, "Origin": "https://ui.example"})).status_code == 200
        assert (await web.get("/api/v1/runs", headers=foreign)).status_code == 403


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        (BROWSER, "consumer=ui", 403),
        (BROWSER, "consumer=ui&take_over=true", 403),
        (BROWSER, "", 200),
        ({**BROWSER, "Sec-Fetch-Site": "same-origin"}, "consumer=ui", 200),
        ({"User-Agent": "curl/8.5.0"}, "consumer=ui", 200),
    ],
)
async def test_browsers_that_hide_their_site_acquire_no_lease(
    web: httpx.AsyncClient, server: Server, headers: dict[str, str], query: str, status: int
) -> None:
    await create(server.stubs)
    async with web.stream("GET", f"/api/v1/runs/run/stream?{query}", headers=headers) as answer:
        assert answer.status_code == status
        if status == 403:
            assert "serve HTTPS" in (await answer.aread()).decode()


async def test_a_server_beyond_loopback_is_called_by_its_names(tmp_path: Path) -> None:
    listens: dict[str, Any] = {"http": "0.0.0.0:0", "http_hosts": ["lavant.test"], "insecure": True}
    async with serving(tmp_path, **listens) as server:
        port = server.app.http_address.rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as web:
            for host, status in (
                ("lavant.test", 200),
                (f"LAVANT.test:{port}", 200),
                ("localhost", 200),
                ("evil.example", 403),
                ("10.0.0.1", 403),
            ):
                assert (await web.get("/api/v1/runs", headers={"Host": host})).status_code == status, host


WAYS = {
    "image": '<img src="URL">',
    "frame": '<iframe src="URL"></iframe>',
    "script": '<script src="URL"></script>',
    "style": '<link rel="stylesheet" href="URL">',
    "fetch": '<script>fetch("URL", {mode: "no-cors"})</script>',
    "events": '<script>new EventSource("URL")</script>',
    "beacon": '<script>navigator.sendBeacon("URL")</script>',
}


@asynccontextmanager
async def hostile_site(target: str) -> AsyncIterator[str]:
    """Serve a page that requests an address in every way that needs no permission; yield the page's address."""
    html = "".join(element.replace("URL", f"{target}&session={way}") for way, element in WAYS.items())

    async def page(_: Request) -> Response:
        return HTMLResponse(f"<!doctype html><body>{html}")

    async with serving_web(Starlette(routes=[Route("/", page)])) as web:
        yield str(web.base_url)


@needs_chromium
async def test_a_foreign_page_cannot_displace_a_consumer(site: Site, browser: Browser) -> None:
    async with site.client.runs.start("agent") as run:
        await run.flush()
        async with site.client.runs.stream(run.id, consumer="ui") as stream:
            await anext(stream)
            target = f"{site.url}/api/v1/runs/{run.id}/stream?consumer=ui&take_over=true"
            async with hostile_site(target) as address, await browser.new_page() as page, asyncio.timeout(40):
                ended = set[str]()
                changed = asyncio.Event()

                def note(request: Any) -> None:
                    if request.url.startswith(target):
                        ended.add(request.url.rpartition("=")[2])
                        changed.set()

                # Chromium reports answers that the page may not read as failures.
                page.on("requestfailed", note)
                page.on("response", note)
                await page.goto(address, wait_until="commit")
                while not ended >= WAYS.keys():
                    await changed.wait()
                    changed.clear()
                async with page.expect_response(f"{target}&session=location") as answer:
                    await page.evaluate(f"location.href = '{target}&session=location'")
                assert (await answer.value).status == 403
            await run.custom("acme.note", "still here")
            assert (await anext(stream)).type == "custom"
