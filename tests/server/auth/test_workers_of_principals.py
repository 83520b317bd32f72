"""Samples are held by sessions that belong to a principal, and whose IDs nobody else can read."""

import asyncio
from pathlib import Path

import httpx
import pytest

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1 import event_service_pb2
from server.auth.conftest import As
from support.calls import listed
from support.rules import Worker, create_rule, evaluated_runs, finish, get_rule, results
from support.server import Server
from support.status import refused
from support.streams import read, stream

SESSION = "honest-session-9f86d081"


def stored_bytes(folder: Path) -> bytes:
    """All that the store's files hold."""
    return b"".join(path.read_bytes() for path in folder.rglob("lavant.db*"))


async def test_a_forged_score_does_not_replace_an_honest_one(as_: As) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await create_rule(alice)
    honest = await Worker(alice, SESSION).opened()
    await finish(alice, ["a"])
    await honest.got(1)
    forger = Worker(bob, SESSION)  # even if the session's ID has leaked
    with refused("SAMPLE_LOST"):
        await forger.complete("a", correct=1.0)
    with refused("SAMPLE_LOST"):
        await forger.fail("a")
    with refused("SAMPLE_LOST"):
        await forger.give_back("a")
    assert await honest.complete("a", correct=0.0) == [False]
    with refused("SAMPLE_LOST"):  # a repetition by somebody else is none
        await forger.complete("a", correct=0.0)
    assert await honest.complete("a", correct=0.0) == [True]
    (row,) = [event.row_finished for event in await results(alice) if event.HasField("row_finished")]
    assert [score.number for score in row.scores] == [0.0]


async def test_another_principal_neither_returns_samples_nor_ends_the_session(as_: As) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await create_rule(alice)
    honest = await Worker(alice, SESSION).opened()
    await finish(alice, ["a", "b"])
    await honest.got(2)
    forger = Worker(bob, SESSION)
    await forger.say("", returned=pb.SampleReturn(run_ids=["a"]))
    await forger.say("", returned=pb.SampleReturn())
    await finish(alice, ["c"])
    await honest.got(3)
    assert await honest.complete("a", "b", "c") == [False] * 3
    assert evaluated_runs(await results(alice)) == ["a", "b", "c"]


async def test_a_worker_with_the_same_session_does_not_receive_anothers_samples(as_: As) -> None:
    alice, bob, carol = await as_("alice"), await as_("bob"), await as_("carol")
    await create_rule(alice)
    await finish(alice, ["a"])
    honest = await Worker(alice, SESSION).opened()
    await honest.got(1)
    with refused("CONSUMER_BUSY"):
        await Worker(bob, SESSION).opened(attempt=9)
    with refused("PERMISSION_DENIED") as denied:
        await Worker(bob, SESSION).opened(attempt=9, take_over=True)
    assert denied.metadata == {"scope": "runs:take-over"}
    other = await Worker(bob, SESSION, worker_id="other").opened(attempt=9)
    await other.caught_up()
    assert other.samples == []
    await Worker(carol, SESSION).opened(take_over=True)
    assert await honest.complete("a") == [False]


async def test_the_session_of_a_worker_is_nowhere_to_be_read(
    as_: As, principals_server: Server, tmp_path: Path, overrides: dict[str, str]
) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await create_rule(alice)
    honest = await Worker(alice, SESSION).opened()
    assert honest.frames[0].opened.session_id == SESSION
    await finish(alice, ["a", "b", "c"])
    await honest.got(3)
    await honest.complete("a")
    await honest.give_back("b")
    rule = await get_rule(bob)
    seen = [str(rule), *map(str, await listed(bob, rule.evaluation_id))]
    watched = stream(bob, run_id=rule.evaluation_id, consumer_id="bob")
    async with asyncio.timeout(20):
        while not (frame := await read(watched)).HasField("caught_up"):
            seen.append(str(frame))
    seen.append(str(frame))
    async with httpx.AsyncClient(
        base_url=f"http://{principals_server.app.http_address}", headers={"Authorization": "Bearer bob"}
    ) as web:
        for path in (f"runs/{rule.evaluation_id}/events", "rules/rule", f"evaluations/{rule.evaluation_id}", "runs"):
            response = await web.get(f"/api/v1/{path}")
            assert response.status_code == 200
            seen.append(response.text)
    assert not [text for text in seen if SESSION in text]
    if not overrides:  # of a store on NATS there is no file here
        stored = stored_bytes(tmp_path)
        assert b"worker-" + SESSION.encode() in stored  # the worker's ID, which shows that this finds anything
        assert stored.count(SESSION.encode()) == stored.count(b"worker-" + SESSION.encode())


@pytest.mark.parametrize("types", [[], [20], [100]])
async def test_no_filter_shows_the_servers_own_records(as_: As, types: list[int]) -> None:
    alice = await as_("alice")
    await create_rule(alice)
    honest = await Worker(alice, SESSION).opened()
    await finish(alice, ["a"])
    await honest.got(1)
    request = event_service_pb2.ListEventsRequest(run_id="lavant.rule.1", types=types)  # type: ignore[arg-type]
    if types == [100]:
        with refused("INVALID_FIELD"):
            await alice.events.ListEvents(request)
        return
    page = await alice.events.ListEvents(request)
    assert {event.WhichOneof("payload") for event in page.events} == {"run_started"}
