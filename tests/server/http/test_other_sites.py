"""Pages of other sites in a real browser: those of `http_origins` read, also over a kill; others get nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lavant.client import AsyncClient
from server.http.browser import Site, a_site, browsing, needs_chromium
from support.server import serving
from support.web import serving_web

pytestmark = [needs_chromium, pytest.mark.browser]
ORIGIN = "https://ui.example"
# Two readers of a stream: fetch, which sends the credential and the position as headers, and EventSource, which cannot.
SCRIPT = """
const seen = {fetch: [], events: []}, ended = {};

async function readByFetch(url, token) {
  let lastId = "";
  const note = (block) => {
    const fields = Object.fromEntries(block.split("\\n").map((line) => line.split(/: (.*)/s)));
    lastId = fields.id ?? lastId;
    if (fields.event === "text_delta") seen.fetch.push(JSON.parse(fields.data).text_delta.text);
    if (fields.event === "end" && !JSON.parse(fields.data).reconnect) ended.fetch = true;
  };
  while (!ended.fetch) {
    try {
      const headers = {Authorization: `Bearer ${token}`, ...(lastId && {"Last-Event-ID": lastId})};
      const response = await fetch(url, {headers});
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (let piece; !(piece = await reader.read()).done;) {
        const blocks = (rest + piece.value).split("\\n\\n");
        rest = blocks.pop();
        blocks.forEach(note);
      }
    } catch {
      await new Promise((resume) => setTimeout(resume, 100)); // the server is away
    }
  }
}

function readByEventSource(url, token) {
  const source = new EventSource(`${url}&access_token=${token}`);
  source.addEventListener("text_delta", ({data}) => seen.events.push(JSON.parse(data).text_delta.text));
  source.addEventListener("end", ({data}) => {
    if (!JSON.parse(data).reconnect) { ended.events = true; source.close(); }
  });
}

async function outcome(url, options) {
  return fetch(url, options).then(({status, type}) => type === "opaque" ? type : status, ({name}) => name);
}

function outcomeOfEventSource(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    source.onopen = () => resolve("open");
    source.onerror = () => resolve(source.readyState === EventSource.CLOSED ? "refused" : "cut");
  });
}
"""
OUTCOME = "([url, options]) => outcome(url, options)"


@asynccontextmanager
async def other_site() -> AsyncIterator[str]:
    """Serve an empty page with the script, under another name than the server's; yield its origin."""

    async def page(_: Request) -> Response:
        return HTMLResponse(f"<!doctype html><script>{SCRIPT}</script>")

    async with serving_web(Starlette(routes=[Route("/", page)])) as web:
        yield f"http://localhost:{web.base_url.port}"


@asynccontextmanager
async def served_for(origin: str, folder: Path) -> AsyncIterator[Site]:
    """Serve with API keys, for the pages of an origin."""
    async with a_site(folder, "--auth", "keys", "--init-key", "--http-origins", origin) as site:
        yield site


@asynccontextmanager
async def page_of(origin: str) -> AsyncIterator[Page]:
    """Open the page of an origin in a browser of its own."""
    async with browsing() as browser:
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        await page.goto(origin)
        yield page
        await browser.close()


async def token_for(client: AsyncClient, run_id: str) -> str:
    return (await client.access.create_token(run_id=run_id)).token


async def test_page_of_a_listed_origin_reads_over_a_kill(tmp_path: Path) -> None:
    async with other_site() as origin, served_for(origin, tmp_path) as site, page_of(origin) as page:
        async with site.client.runs.start("agent", on_error="raise") as run:
            stream, token = f"{site.url}/api/v1/runs/{run.id}/stream", await token_for(site.client, run.id)

            async def seen(*texts: str) -> None:
                await page.wait_for_function(
                    "(texts) => seen.fetch.length >= texts.length && seen.events.length >= texts.length", arg=texts
                )
                assert await page.evaluate("seen") == {"fetch": list(texts), "events": list(texts)}

            async def write(text: str) -> None:
                await run.text(text)
                await run.flush()

            await write("a")
            for reader in ("readByFetch", "readByEventSource"):
                read = f"([url, token]) => void {reader}(`${{url}}?consumer={reader}`, token)"
                await page.evaluate(read, [stream, token])
            await seen("a")
            await write("b")
            await seen("a", "b")
            await site.process.kill()
            await site.start()
            await write("c")
            await seen("a", "b", "c")
        await page.wait_for_function("ended.fetch && ended.events")
        await seen("a", "b", "c")


async def test_page_of_another_origin_gets_nothing(tmp_path: Path) -> None:
    async with (
        other_site() as listed,
        other_site() as origin,
        served_for(listed, tmp_path) as site,
        site.client.runs.start("agent", on_error="raise") as run,
        page_of(origin) as page,
    ):
        await run.flush()
        token = await token_for(site.client, run.id)
        stream = f"{site.url}/api/v1/runs/{run.id}/stream?access_token={token}"
        for url, options in (
            (f"{site.url}/api/v1/runs", {"headers": {"Authorization": f"Bearer {site.key}"}}),
            (f"{site.url}/api/v1/runs", {}),
            (stream, {}),
            (stream, {"headers": {"Last-Event-ID": "x"}}),
            (stream, {"credentials": "include"}),
        ):
            assert await page.evaluate(OUTCOME, [url, options]) == "TypeError", (url, options)
        assert await page.evaluate("outcomeOfEventSource", stream) == "refused"


@pytest.mark.parametrize("is_listed", [True, False])
async def test_pages_of_other_sites_change_nothing(tmp_path: Path, *, is_listed: bool) -> None:
    async with (
        other_site() as listed,
        other_site() as other,
        served_for(listed, tmp_path) as site,
        site.client.runs.start("agent", on_error="raise") as run,
        page_of(listed if is_listed else other) as page,
    ):
        await run.flush()
        url = f"{site.url}/api/v1/runs/{run.id}"
        simple = {"method": "POST", "mode": "no-cors", "body": "{}"}  # as a form sends it, without a preflight
        async with page.expect_response(url) as posted:
            assert await page.evaluate(OUTCOME, [url, simple]) == "opaque"
        assert (await posted.value).status == 405
        for method in ("DELETE", "PUT", "POST"):
            options = {"method": method, "headers": {"Authorization": f"Bearer {site.key}"}}
            assert await page.evaluate(OUTCOME, [url, options]) == "TypeError"
        assert (await site.client.runs.get(run.id)).state.name == "RUNNING"


@pytest.mark.parametrize(
    ("origin", "method", "headers", "status"),
    [
        (ORIGIN, "GET", "authorization,last-event-id", 200),
        (ORIGIN, "HEAD", "authorization", 200),
        (ORIGIN, "GET", "x-other", 400),
        (ORIGIN, "DELETE", "authorization", 400),
        (ORIGIN, "POST", "", 400),
        ("https://other.example", "GET", "authorization", 405),
        ("null", "GET", "authorization", 405),
    ],
)
async def test_preflight_allows_to_read_with_a_credential_and_a_position(
    tmp_path: Path, origin: str, method: str, headers: str, status: int
) -> None:
    async with (
        serving(tmp_path, http="127.0.0.1:0", auth=["keys"], http_origins=[ORIGIN]) as server,
        httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web,
    ):
        asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
        for path in ("/api/v1/runs/run/stream", "/api/v1/watch", "/api/v1/scores"):
            answer = await web.options(path, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site", **asked})
            assert answer.status_code == status, answer.text
            assert answer.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)
            assert "access-control-allow-credentials" not in answer.headers
