"""Whatever a caller asks with the IDs of another tenant, the answer is the one for IDs of none."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from grpc import aio

from lavant.contract.status import STATUS_DETAILS_KEY
from lavant.v1 import (
    evaluation_service_pb2,
    event_service_pb2,
    rule_service_pb2,
    run_service_pb2,
    score_service_pb2,
)
from lavant.v1.event_service_pb2 import ListEventsRequest, StreamEventsRequest
from lavant.v1.run_service_pb2 import ListRunsRequest, RunFilter, WatchRunsRequest
from lavant.v1.score_service_pb2 import ListScoresRequest, ScoreFilter
from support.calls import PATIENCE, append, create
from support.events import a_run_of, batch_of
from support.rules import Worker, a_rule, create_rule, finish
from support.scores import record, score
from support.server import Server, Stubs
from support.status import refused
from support.streams import streamed
from support.tenants import authorization, stubs_of

# Of the same length, so that errors that have them differ in nothing else.
THEIRS, NOBODYS = "of-acme", "of-none"
SERVICES = {
    "runs": run_service_pb2,
    "events": event_service_pb2,
    "rules": rule_service_pb2,
    "evaluations": evaluation_service_pb2,
    "scores": score_service_pb2,
}
RETURNED = evaluation_service_pb2.SampleReturn()


def filter_of(name: str) -> ScoreFilter:
    return ScoreFilter(rule_ids=[name], subject_run_id=name)


# For each RPC the fields of a request that names something by its ID. Those that create come last.
REQUESTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "GetRun": lambda name: {"run_id": name},
    "ListRuns": lambda name: {"filter": RunFilter(parent_run_id=name)},
    "WaitRun": lambda name: {"run_id": name, "timeout": {"seconds": 1}},
    "WatchRuns": lambda name: {"filter": RunFilter(conversation_id=name)},
    "CancelRun": lambda name: {"run_id": name},
    "DeleteRun": lambda name: {"run_id": name},
    "StreamEvents": lambda name: {"run_id": name, "consumer_id": "ui", "session_id": "other", "take_over": True},
    "ListEvents": lambda name: {"run_id": name},
    "AppendEvents": lambda name: {"batch": batch_of([], run_id=name, epoch=2**62)},
    "PublishEvents": lambda name: {"batches": [batch_of(a_run_of(2, finished=False), run_id=name)]},
    "GetRule": lambda name: {"rule_id": name},
    "ListRules": lambda name: {},
    "UpdateRule": lambda name: {"rule": a_rule(name, salt="other")},
    "DeleteRule": lambda name: {"rule_id": name},
    "BackfillRule": lambda name: {"rule_id": name},
    "SampleRuns": lambda name: {"rule_id": name, "worker_id": "w", "session_id": "session", "take_over": True},
    "CompleteSample": lambda name: {"rule_id": name, "run_id": name, "session_id": "session", "returned": RETURNED},
    "RecordScore": lambda name: {"score_id": name, "run_id": name, "score": score()},
    "ListScores": lambda name: {"filter": filter_of(name)},
    "QueryScores": lambda name: {"filter": filter_of(name)},
    "CompareScores": lambda name: {"baseline": filter_of(name), "candidate": filter_of(name)},
    "CreateRun": lambda name: {"run_id": name, "settings": {"name": "weather"}},
    "CreateRule": lambda name: {"rule": a_rule(name)},
}


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


async def answered(stubs: Stubs, rpc: str, fields: dict[str, Any]) -> str:
    """Call an RPC; return the whole response as text: messages, or the status with its details."""
    service, module = next(
        (name, module)
        for name, module in SERVICES.items()
        for found in module.DESCRIPTOR.services_by_name.values()
        if rpc in found.methods_by_name
    )
    request = getattr(module, f"{rpc}Request")(**fields)
    method = getattr(getattr(stubs, service), rpc)
    try:
        if rpc == "PublishEvents":
            call = method(timeout=PATIENCE)
            await call.write(request)
            await call.done_writing()
            return str([frame async for frame in call])
        if rpc not in ("StreamEvents", "SampleRuns", "WatchRuns"):
            return str(await method(request, timeout=PATIENCE))
        call = method(request, timeout=PATIENCE)
        frames: list[Message] = []
        async for frame in call:
            frames.append(frame)
            if frame.caught_up:
                break
        call.cancel()
        return str(frames)
    except aio.AioRpcError as error:
        trailers = dict(iter(error.trailing_metadata()))
        return f"{error.code()} {error.details()} {trailers.get(STATUS_DETAILS_KEY)!r}"


def test_requests_name_every_rpc() -> None:
    rpcs = {
        method.name
        for module in SERVICES.values()
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(REQUESTS) == rpcs


@pytest.mark.usefixtures("acme")
async def test_each_rpc_answers_for_foreign_ids_as_for_none(server: Server) -> None:
    mine = stubs_of(server.stubs, "beta")
    for rpc, fields in REQUESTS.items():
        theirs = await answered(mine, rpc, fields(THEIRS))
        nobodys = await answered(mine, rpc, fields(NOBODYS))
        assert theirs.replace(THEIRS, NOBODYS) == nobodys, rpc
        assert "child" not in theirs, rpc


async def test_each_path_answers_for_foreign_ids_as_for_none(server: Server, acme: Stubs) -> None:
    del acme
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}", timeout=PATIENCE) as web:
        paths = (await web.get("/openapi.json")).json()["paths"]
        for path, methods in paths.items():
            asked = {one["name"] for one in methods["get"]["parameters"] if one["in"] == "query"}
            ids = asked & {"parent_run_id", "conversation_id", "subject_run_id", "rule_id"}
            if path.endswith("/watch"):
                continue  # never ends; the same service as WatchRuns

            async def answer(name: str, path: str = path, ids: set[str] = ids) -> tuple[int, str]:
                parameters = dict.fromkeys(ids, name)
                if path.endswith("comparison"):
                    parameters["baseline_version"] = "1"
                url = path.format(run_id=name, rule_id=name)
                response = await web.get(url, params=parameters, headers=authorization("beta"))
                return response.status_code, response.text.replace(name, NOBODYS)

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
