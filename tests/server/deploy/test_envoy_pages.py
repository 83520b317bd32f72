"""gRPC-Web calls of pages through a real Envoy: who may make them, under which names."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message

from lavant.v1.run_pb2 import RunKind, RunSettings, RunState
from lavant.v1.run_service_pb2 import CancelRunRequest, CreateRunRequest, GetRunRequest, GetRunResponse
from support.envoy import Envoy
from support.server import ServerProcess, free_address

ORIGIN = "https://ui.example"
WEB = "application/grpc-web+proto"
CREATE = CreateRunRequest(run_id="run", settings=RunSettings(kind=RunKind.RUN_KIND_AGENT, name="page"))
HEADERS = ("authorization", "content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")


@dataclass(frozen=True, slots=True)
class Pages:
    """A browser of pages before Envoy and a server."""

    web: httpx.AsyncClient

    async def call(self, method: str, request: Message, **headers: str) -> httpx.Response:
        """Make a gRPC-Web call with one message."""
        data = request.SerializeToString()
        return await self.web.post(
            f"/lavant.v1.RunService/{method}",
            content=bytes(1) + len(data).to_bytes(4, "big") + data,
            headers={"Content-Type": WEB, "X-Grpc-Web": "1", **headers},
        )


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[Pages]:
    server, http = ServerProcess(tmp_path, admin=free_address()), free_address()
    await server.start("--http", http)
    envoy = Envoy(tmp_path, [server.target], [http], [server.admin], origins=[ORIGIN])
    try:
        await envoy.start()
        await envoy.healthy(1)
        async with httpx.AsyncClient(base_url=f"http://{envoy.http}", timeout=20) as web:
            yield Pages(web)
    finally:
        await envoy.kill()
        await server.kill()


def message_of(answer: httpx.Response) -> bytes:
    """Return the message of an answer that has one, and trailers that say OK."""
    length = int.from_bytes(answer.content[1:5], "big")
    trailers = answer.content[5 + length :]
    assert (answer.content[0], trailers[0]) == (0, 0x80)
    assert b"grpc-status:0" in trailers
    return answer.content[5 : 5 + length]


async def test_page_calls_over_grpc_web(pages: Pages) -> None:
    created = await pages.call("CreateRun", CREATE, Origin=ORIGIN)
    assert (created.status_code, created.headers["content-type"]) == (200, WEB)
    assert created.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in created.headers
    got = await pages.call("GetRun", GetRunRequest(run_id="run"))  # a page of the own origin sends none
    assert GetRunResponse.FromString(message_of(got)).run.name == "page"


async def test_page_can_read_why_a_call_is_refused(pages: Pages) -> None:
    answer = await pages.call("GetRun", GetRunRequest(run_id="none"), Origin=ORIGIN)
    assert answer.headers["grpc-status"] == "5"
    assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(("origin", "status"), [(ORIGIN, 200), ("https://other.example", 405), ("null", 405)])
async def test_preflight_allows_listed_origins_only(pages: Pages, origin: str, status: int) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ",".join(HEADERS)}
    answer = await pages.web.options("/lavant.v1.RunService/CreateRun", headers={"Origin": origin, **asked})
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    if status == 200:
        assert set(HEADERS) <= set(answer.headers["access-control-allow-headers"].split(","))


async def test_calls_that_need_no_preflight_are_refused(pages: Pages) -> None:
    """A form of any site can send these types, and no other."""
    await pages.call("CreateRun", CREATE)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = await pages.call("CancelRun", CancelRunRequest(run_id="run"), **{"Content-Type": kind})
        assert answer.status_code == 405, kind
    got = await pages.call("GetRun", GetRunRequest(run_id="run"))
    run = GetRunResponse.FromString(message_of(got)).run
    assert run.state == RunState.RUN_STATE_QUEUED


async def test_page_of_a_name_that_resolves_to_envoy_calls_nothing(pages: Pages) -> None:
    answer = await pages.call("CreateRun", CREATE, Host="evil.example", Origin="http://evil.example")
    assert answer.status_code in (403, 405)
    assert (await pages.call("GetRun", GetRunRequest(run_id="run"))).headers["grpc-status"] == "5"
    for host in ("localhost", "localhost:7448"):
        assert (await pages.call("GetRun", GetRunRequest(run_id="run"), Host=host)).headers["grpc-status"] == "5"


async def test_other_paths_are_lavants(pages: Pages) -> None:
    assert (await pages.web.get("/api/v1/runs")).json() == {}
    assert (await pages.web.options("/api/v1/runs", headers={"Origin": ORIGIN})).status_code == 405
    assert (await pages.web.get("/lavant.v1.RunService/GetRun")).status_code == 404
