"""CreateRun, GetRun, CancelRun and DeleteRun, as the contract's comments say."""

from pathlib import Path
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ResourceInfo

from lavant.v1.event_service_pb2 import ListEventsRequest, StreamEventsRequest
from lavant.v1.run_pb2 import RunKind, RunSettings, RunState
from lavant.v1.run_service_pb2 import CancelRunRequest, CreateRunRequest, DeleteRunRequest, GetRunRequest
from support.calls import append, create, ended_run, get, listed
from support.clock import ManualClock
from support.events import a_run_of, run_finished, run_started
from support.server import Server, serving
from support.status import refused

FULL = CreateRunRequest(
    run_id="a.run_of~all-fields",
    settings=RunSettings(
        kind=RunKind.RUN_KIND_EVALUATION,
        name="answers",
        labels={"team": "search", "ünïcödé": ""},
        parent_run_id="parent",
        conversation_id="a conversation: any text",
        producer_timeout=Duration(seconds=90),
    ),
)


async def test_a_run_is_created_as_asked_and_is_queued(timed_server: Server, clock: ManualClock) -> None:
    run = (await timed_server.stubs.runs.CreateRun(FULL)).run

    assert run.run_id == FULL.run_id
    for field in RunSettings.DESCRIPTOR.fields:
        assert getattr(run, field.name) == getattr(FULL.settings, field.name), field.name
    assert run.state == RunState.RUN_STATE_QUEUED
    assert run.create_time.ToNanoseconds() == clock.time_ns()
    assert run.last_sequence == 0
    assert not run.HasField("end_time")
    assert not run.HasField("result")
    assert await get(timed_server.stubs, FULL.run_id) == run


async def test_an_id_is_minted_that_sorts_by_time(timed_server: Server, clock: ManualClock) -> None:
    minted = []
    for _ in range(3):
        minted.append((await create(timed_server.stubs, "")).run_id)
        clock.advance(0.001)

    assert [UUID(run_id).version for run_id in minted] == [7, 7, 7]
    assert [UUID(run_id).variant for run_id in minted] == ["specified in RFC 4122"] * 3
    assert sorted(minted) == minted
    assert int(minted[0].replace("-", "")[:12], 16) == 1_700_000_000_000


async def test_without_a_kind_a_run_is_an_agents(server: Server) -> None:
    assert (await create(server.stubs)).kind == RunKind.RUN_KIND_AGENT
    assert (await create(server.stubs, kind=RunKind.RUN_KIND_AGENT)).run_id == "run"


async def test_creating_again_gives_the_same_run_as_it_stands_now(server: Server) -> None:
    await server.stubs.runs.CreateRun(FULL)
    await append(server.stubs, [run_started()], run_id=FULL.run_id)

    again = (await server.stubs.runs.CreateRun(FULL)).run

    assert again.state == RunState.RUN_STATE_RUNNING
    assert again == await get(server.stubs, FULL.run_id)


@pytest.mark.parametrize(
    "other",
    [
        {"kind": RunKind.RUN_KIND_AGENT},
        {"name": "others"},
        {"labels": {"team": "search"}},
        {"parent_run_id": ""},
        {"conversation_id": "another"},
        {"producer_timeout": Duration(seconds=91)},
        {"producer_timeout": None},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_taken_id_with_other_settings_is_refused(server: Server, other: dict[str, object]) -> None:
    await server.stubs.runs.CreateRun(FULL)
    fields = {field.name: getattr(FULL.settings, field.name) for field in RunSettings.DESCRIPTOR.fields}
    settings = RunSettings(**{**fields, **other})

    with refused("RUN_EXISTS") as refusal:
        await server.stubs.runs.CreateRun(CreateRunRequest(run_id=FULL.run_id, settings=settings))

    assert refusal.metadata == {"run_id": FULL.run_id}


async def test_a_run_shows_how_it_ended(timed_server: Server, clock: ManualClock) -> None:
    await create(timed_server.stubs)
    clock.advance(5)
    await append(timed_server.stubs, [run_started(), last := run_finished(RunState.RUN_STATE_FAILED)])

    run = await get(timed_server.stubs)

    assert run.state == RunState.RUN_STATE_FAILED
    assert run.last_sequence == 2
    assert run.result == last.run_finished
    assert run.end_time == run.update_time == run.producer_seen_time
    assert run.end_time.ToNanoseconds() == clock.time_ns() == run.create_time.ToNanoseconds() + 5_000_000_000


async def test_a_missing_run_is_named(server: Server) -> None:
    with refused("RUN_NOT_FOUND") as refusal:
        await get(server.stubs, "missing")

    assert refusal.metadata == {"run_id": "missing"}
    resource = refusal.detail(ResourceInfo)
    assert (resource.resource_type, resource.resource_name) == ("lavant.v1.Run", "missing")


async def test_cancelling_leaves_a_run_as_it_is_and_can_be_repeated(server: Server) -> None:
    created = await create(server.stubs)

    for reason in ("too slow", "another reason", ""):
        run = (await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run", reason=reason))).run
        assert run == created

    await append(server.stubs, a_run_of(4))
    assert (await get(server.stubs)).state == RunState.RUN_STATE_SUCCEEDED


async def test_cancelling_an_ended_run_answers_with_it(server: Server) -> None:
    await ended_run(server.stubs)
    assert (await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run"))).run == await get(server.stubs)


async def test_a_run_must_end_before_it_is_deleted(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()])

    with refused("RUN_NOT_ENDED") as refusal:
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))

    assert refusal.metadata == {"run_id": "run"}
    assert len(await listed(server.stubs)) == 1


async def test_nothing_is_left_of_a_deleted_run(server: Server) -> None:
    await ended_run(server.stubs, size=5)
    page = await server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_size=2))
    await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))

    stream = StreamEventsRequest(run_id="run", consumer_id="ui", resume_token=page.next_page_token)
    for call in (
        server.stubs.runs.GetRun(GetRunRequest(run_id="run")),
        server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run")),
        server.stubs.runs.CancelRun(CancelRunRequest(run_id="run")),
        server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_token=page.next_page_token)),
        server.stubs.events.StreamEvents(stream).read(),
    ):
        with refused("RUN_NOT_FOUND"):
            await call


async def test_tokens_of_a_deleted_run_do_not_open_its_successor(timed_server: Server, clock: ManualClock) -> None:
    await ended_run(timed_server.stubs, size=5)
    page = await timed_server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_size=2))
    await timed_server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))
    clock.advance(1)
    await ended_run(timed_server.stubs, size=5)

    token = page.next_page_token
    with refused("RESUME_TOKEN_INVALID"):
        await timed_server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_token=token))
    with refused("RESUME_TOKEN_INVALID"):
        stream = StreamEventsRequest(run_id="run", consumer_id="ui", resume_token=token)
        await timed_server.stubs.events.StreamEvents(stream).read()


async def test_runs_outlive_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await ended_run(server.stubs)
        before = await get(server.stubs), await listed(server.stubs)

    async with serving(tmp_path) as server:
        assert (await get(server.stubs), await listed(server.stubs)) == before
