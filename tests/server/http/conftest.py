"""A server in this process that serves HTTP, and who asks it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from lavant.client import AsyncClient
from server.http.browser import Site, a_site, browsing
from server.http.scored import keep, two_days
from support.server import Server, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, http="127.0.0.1:0", admin="127.0.0.1:0") as running:
        yield running


@pytest.fixture
async def web(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever asks over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=20) as client:
        yield client


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever probes and scrapes the server."""
    async with httpx.AsyncClient(base_url=f"http://{server.app.admin_address}", timeout=20) as client:
        yield client


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    """Whoever publishes."""
    async with AsyncClient(server.target) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests, each of which opens pages in contexts of its own: its start takes a second of CPU."""
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path, browser: Browser) -> AsyncIterator[Site]:
    """A browser on the dashboard."""
    async with a_site(tmp_path, browser=browser) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def scored(tmp_path: Path, browser: Browser) -> AsyncIterator[Site]:
    """A browser on the dashboard of a server with the scores of two days."""
    await keep(tmp_path, two_days())
    async with a_site(tmp_path, browser=browser) as site:
        yield site
