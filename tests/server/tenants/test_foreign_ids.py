"""Whatever a caller asks with the IDs of another tenant, the answer is the one for IDs of none."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lavant.v1.event_service_pb2 import ListEventsRequest, StreamEventsRequest
from lavant.v1.run_service_pb2 import ListRunsRequest, WatchRunsRequest
from lavant.v1.score_service_pb2 import ListScoresRequest
from support.calls import PATIENCE, append, create
from support.credentials import create_key
from support.events import a_run_of
from support.every_call import REQUESTS, RPCS, answer_of
from support.rules import Worker, create_rule, finish
from support.scores import record
from support.server import Server, Stubs
from support.status import refused
from support.streams import streamed
from support.tenants import authorization, stubs_of
from support.web import text_until_caught_up

# Of the same length, so that errors that have them differ in nothing else.
THEIRS, NOBODYS = "of-acme", "of-none"


@pytest.fixture
async def acme(server: Server) -> AsyncIterator[Stubs]:
    """A tenant with one of everything, all of the same ID, and a worker and a reader that are there."""
    stubs = stubs_of(server.stubs, "acme")
    await create_rule(stubs, THEIRS)
    worker = await Worker(stubs, "session", worker_id="w", rule_id=THEIRS).opened()
    await finish(stubs, [THEIRS], conversation_id=THEIRS)
    await create(stubs, "child", parent_run_id=THEIRS, conversation_id=THEIRS)
    await append(stubs, a_run_of(2, finished=False), run_id="child")
    await worker.got(1)
    await worker.complete(THEIRS)
    await record(stubs, THEIRS, run_id=THEIRS)
    yield stubs
    worker.cut()


async def ids_of(acme: Stubs, rpc: str) -> tuple[str, str]:
    """Return an ID of the tenant's, and one of nobody's, that a request of an RPC may name."""
    if rpc in ("ListKeys", "CreateKey"):  # which name a tenant
        return "acme", "none"
    if rpc == "RevokeKey":
        key, _ = await create_key(acme, "runs:read")
        return key.key_id, "a" * len(key.key_id)
    return THEIRS, NOBODYS


def test_requests_name_every_rpc() -> None:
    assert set(REQUESTS) == set(RPCS)


async def test_each_rpc_answers_for_foreign_ids_as_for_none(server: Server, acme: Stubs) -> None:
    mine = stubs_of(server.stubs, "beta")
    for rpc, fields in REQUESTS.items():
        theirs, nobodys = [(name, await answer_of(mine, rpc, fields(name))) for name in await ids_of(acme, rpc)]
        assert _comparable(theirs[1].text, theirs[0]) == _comparable(nobodys[1].text, nobodys[0]), rpc
        assert "child" not in theirs[1].text, rpc
        assert theirs[1].reason == nobodys[1].reason != "INVALID_FIELD", rpc


def _comparable(answer: str, name: str) -> str:
    """Return an answer without the ID that was asked for, and without a token that was created."""
    return re.sub(r"lva_[^\"]+", "TOKEN", answer).replace(name, "ID")


async def test_each_path_answers_for_foreign_ids_as_for_none(server: Server, acme: Stubs) -> None:
    del acme
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=PATIENCE) as web:
        paths = (await web.get("/openapi.json")).json()["paths"]
        for path, methods in paths.items():
            asked = {one["name"] for one in methods["get"]["parameters"] if one["in"] == "query"}
            ids = asked & {"parent_run_id", "conversation_id", "subject_run_id", "rule_id"}

            async def answer(name: str, path: str = path, ids: set[str] = ids) -> tuple[int, str]:
                parameters = dict.fromkeys(ids, name)
                if path.endswith("comparison"):
                    parameters["baseline_version"] = "1"
                url = path.format(run_id=name, rule_id=name)
                async with web.stream("GET", url, params=parameters, headers=authorization("beta")) as response:
                    text = await text_until_caught_up(response)
                return response.status_code, text.replace(name, NOBODYS)

            assert await answer(THEIRS) == await answer(NOBODYS), path


async def test_tokens_of_another_tenant_are_refused_for_ids_that_both_have(server: Server, acme: Stubs) -> None:
    mine = stubs_of(server.stubs, "beta")
    for stubs in (acme, mine):
        for run_id in ("same", "other"):
            await finish(stubs, [run_id])
            await record(stubs, run_id, run_id=run_id)
    token = (await streamed(acme, run_id="same")).all[0].resume_token
    with refused("PERMISSION_DENIED"):
        await mine.events.StreamEvents(StreamEventsRequest(run_id="same", consumer_id="ui", resume_token=token)).read()
    with refused("PERMISSION_DENIED"):
        await mine.events.StreamEvents(StreamEventsRequest(run_id="none", consumer_id="ui", resume_token=token)).read()
    with refused("PERMISSION_DENIED"):
        await mine.events.ListEvents(ListEventsRequest(run_id="same", page_token=token))
    runs = await acme.runs.ListRuns(ListRunsRequest(page_size=1))
    with refused("INVALID_FIELD", "page_token"):
        await mine.runs.ListRuns(ListRunsRequest(page_token=runs.next_page_token))
    scores = await acme.scores.ListScores(ListScoresRequest(page_size=1))
    with refused("INVALID_FIELD", "page_token"):
        await mine.scores.ListScores(ListScoresRequest(page_token=scores.next_page_token))
    watch = acme.runs.WatchRuns(WatchRunsRequest())
    frame: Any = await watch.read()
    watch.cancel()
    with refused("INVALID_FIELD", "resume_token"):
        await mine.runs.WatchRuns(WatchRunsRequest(resume_token=frame.resume_token)).read()
    headers = {**authorization("beta"), "last-event-id": token}
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=PATIENCE) as web:
        response = await web.get("/api/v1/runs/same/stream", headers=headers)
    assert response.status_code == 403
    assert "acme" not in response.text
