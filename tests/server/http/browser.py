"""The dashboard in a real browser: Debian's Chromium."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

from lavant.client import AsyncClient
from support.server import ServerProcess, free_address

CHROMIUM = shutil.which("chromium") or ""
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;\u202e\x00\r\n'\"`${7*7}"
)
PATIENCE = 20_000  # milliseconds: both processors may be busy with other tests
ACTIVE = "main img, main script, main iframe, main [onerror], main a[href^=javascript]"

needs_chromium = pytest.mark.skipif(
    not CHROMIUM and "CI" not in os.environ, reason="needs chromium: apt-get install chromium"
)
expect.set_options(timeout=PATIENCE)


class Site:
    """A server in a process of its own, with a client of it, and a browser that shows its dashboard."""

    def __init__(
        self,
        process: ServerProcess,
        address: str,
        client: AsyncClient,
        browser: Browser,
        flags: Sequence[str],
        key: str,
    ) -> None:
        self.process = process
        self.key = key
        self._flags = flags
        self.client = client
        self._address = address
        self._browser = browser
        self._pages: list[Page] = []
        self.complaints: list[str] = []
        self.said: list[str] = []
        self.asked: list[str] = []

    async def start(self) -> None:
        await self.process.start("--http", self._address, *self._flags)

    async def refuse(self) -> None:
        """Answer 503 in the server's place until the page was refused twice."""
        asked = asyncio.Semaphore(0)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            asked.release()

        host, port = self._address.split(":")
        async with await asyncio.start_server(answer, host, int(port)):
            await asked.acquire()  # The page's reconnect, and the next one after a longer pause.
            await asked.acquire()

    async def open(self, path: str = "", now: datetime | None = None, **options: object) -> Page:
        """Open a page in a context of its own; with a time, the browser's clock stands still at it."""
        page = await self._browser.new_page(**options)  # type: ignore[arg-type]
        self._pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)
        page.on("request", lambda request: self.asked.append(request.url))
        if now is not None:
            await page.clock.set_fixed_time(now)
        await page.goto(f"{self.url}/#/{path}")
        return page

    async def close(self) -> None:
        """Close the pages, and what they keep."""
        for page in self._pages:
            await page.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self._address}"

    def check_quiet(self) -> None:
        """Nothing was complained of on the console, and nobody else was asked for anything."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(f"{self.url}/")] == []

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)


@asynccontextmanager
async def a_site(folder: Path, *flags: str, browser: Browser | None = None) -> AsyncIterator[Site]:
    """Serve from a store in a folder, and show its dashboard; no page may have an error that nobody caught.

    Without a browser, one is started. With the flag --init-key, the client calls with the first key.
    """
    address = free_address()
    process = ServerProcess(folder)
    await process.start("--http", address, *flags)
    key = (await process.line()).split()[-1] if "--init-key" in flags else ""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.kill)
        client = await stack.enter_async_context(AsyncClient(process.target, api_key=key))
        if browser is None:
            browser = await stack.enter_async_context(browsing())
        site = Site(process, address, client, browser, flags, key)
        stack.push_async_callback(site.close)
        yield site
    assert site.complaints == []


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser, closed at the block's end."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()
