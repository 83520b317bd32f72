"""Health and metrics on an address of their own, also while the public ports are flooded."""

import asyncio
import resource
from pathlib import Path
from typing import Any

import httpx
import pytest

from lavant.server.app import descriptors
from support.credentials import create_key
from support.server import Server, ServerProcess, free_address, serving

PATHS = ("/healthz", "/readyz", "/metrics")
MAX_CONNECTIONS = 50


async def test_public_address_has_no_paths_for_operators(web: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    for path in PATHS:
        assert (await web.get(path)).status_code == 404
        assert (await admin.get(path)).status_code == 200
        head = await admin.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert (await admin.get("/metrics")).headers["content-type"].startswith("text/plain")


async def test_admin_address_serves_nothing_else(admin: httpx.AsyncClient) -> None:
    for path in ("/", "/static/app.js", "/openapi.json", "/api/v1/runs"):
        assert (await admin.get(path)).status_code == 404
    assert (await admin.post("/healthz")).status_code == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "10.1.2.3:7449"}, 200),
        ({"Host": "[fe80::1]:7449"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "10.1.2.3.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_admin_is_called_by_address_and_not_by_pages(
    admin: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    for path in PATHS:
        answer = await admin.get(path, headers=headers)
        assert answer.status_code == status
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_admin_may_be_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert server.app.admin_address == "off"


async def connect_silently(address: str, count: int) -> list[asyncio.StreamWriter]:
    """Open so many connections that send nothing."""
    host, port = address.split(":")
    found = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(count)))
    return [writer for _, writer in found]


async def test_floods_of_public_ports_leave_admin_answering(tmp_path: Path) -> None:
    """There are more connections than the process may have open files."""
    http = free_address()
    server = ServerProcess(tmp_path, http=http, admin="127.0.0.1:0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(600, soft), hard))
    try:
        await server.start("--max-connections", str(MAX_CONNECTIONS))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    open_writers = list[asyncio.StreamWriter]()
    try:
        for address in (http, server.target):
            open_writers += await connect_silently(address, 500)
        async with httpx.AsyncClient(base_url=f"http://{server.admin}", timeout=20) as admin:
            for path in PATHS:
                assert (await admin.get(path)).status_code == 200
            with pytest.raises(httpx.TransportError):  # at the public address, nobody else gets in
                await admin.get(f"http://{http}/api/v1/runs")
    finally:
        for writer in open_writers:
            writer.transport.abort()
        await server.kill()


def test_connections_leave_open_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = [(1_024, 4_096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    assert descriptors.connection_limit(100, listeners=2) == 100
    assert limits == [(1_024, 4_096)]
    assert descriptors.connection_limit(1_000, listeners=2) == 1_000
    assert limits[-1] == (4_096, 4_096)
    assert descriptors.connection_limit(10_000, listeners=2) == 1_792
    assert limits[-1] == (4_096, 4_096)


def test_a_limit_that_cannot_be_raised_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert descriptors.connection_limit(10_000, listeners=2) == 256


async def test_admin_survives_until_the_server_has_stopped(server: Server, admin: httpx.AsyncClient) -> None:
    with server.app.calls.entered(lambda: None):  # the drain waits for this one
        stopping = asyncio.create_task(server.app.stop())
        while (answer := await admin.get("/readyz")).status_code == 200:
            pass
        assert (answer.status_code, answer.text) == (503, "draining\n")
        assert (await admin.get("/healthz")).status_code == 200
    await stopping


async def test_metrics_beyond_loopback_need_a_credential_and_health_does_not(tmp_path: Path) -> None:
    listens: dict[str, Any] = {"admin": "0.0.0.0:0", "auth": ["keys"], "init_key": True}
    async with serving(tmp_path, **listens) as server:
        port = server.app.admin_address.rpartition(":")[2]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as admin:
            for path in ("/healthz", "/readyz"):
                assert (await admin.get(path)).status_code == 200
            assert (await admin.get("/metrics")).status_code == 401
            for scope, status in (("metrics", 200), ("runs:read", 403)):
                _, key = await create_key(server.stubs, scope)
                answer = await admin.get("/metrics", headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == status, scope


async def test_metrics_on_loopback_are_open(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, admin="127.0.0.1:0", auth=["keys"], init_key=True) as server,
        httpx.AsyncClient(base_url=f"http://{server.app.admin_address}") as admin,
    ):
        assert (await admin.get("/metrics")).status_code == 200
