"""A consumer's lease belongs to the principal whose stream holds it."""

from typing import Any

import httpx

from server.auth.conftest import As
from support.events import a_run_of
from support.server import Server
from support.streams import append, create, failure, opened, read_to_end, refused

DISPLACES = ""
# newcomer, session, attempt, take_over, result: alice holds the lease with attempt 5 of session "one"
MATRIX = [
    ("alice", "one", 6, False, DISPLACES),
    ("alice-2", "one", 6, False, DISPLACES),
    ("alice", "one", 5, False, "STALE_ATTEMPT"),
    ("alice", "two", 1, False, "CONSUMER_BUSY"),
    ("alice-2", "two", 1, True, DISPLACES),
    ("bob", "one", 6, False, "CONSUMER_BUSY"),
    ("bob", "one", 5, False, "CONSUMER_BUSY"),
    ("bob", "two", 1, False, "CONSUMER_BUSY"),
    ("bob", "one", 6, True, "PERMISSION_DENIED"),
    ("bob", "two", 1, True, "PERMISSION_DENIED"),
    ("carol", "one", 6, False, "CONSUMER_BUSY"),
    ("carol", "two", 1, False, "CONSUMER_BUSY"),
    ("carol", "one", 5, True, DISPLACES),
    ("carol", "two", 1, True, DISPLACES),
]


async def test_a_newcomer_is_decided_by_owner_take_over_and_scope(as_: As) -> None:
    callers = {name: await as_(name) for name in ("alice", "alice-2", "bob", "carol")}
    await create(callers["alice"])
    await append(callers["alice"], a_run_of(3, finished=False))
    for number, (name, session_id, attempt, take_over, result) in enumerate(MATRIX):
        consumer_id = f"consumer-{number}"
        held = await opened(callers["alice"], consumer_id=consumer_id, session_id="one", attempt=5)
        newcomer: dict[str, Any] = {"consumer_id": consumer_id, "session_id": session_id, "attempt": attempt}
        newcomer["take_over"] = take_over
        if result == DISPLACES:
            await opened(callers[name], **newcomer)
            assert (await failure(held)).reason == "STREAM_DISPLACED", newcomer
        else:
            assert (await refused(callers[name], **newcomer)).reason == result, (name, newcomer)


async def test_a_refused_take_over_names_the_scope_and_what_to_do(as_: As) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await create(alice)
    held = await opened(alice)
    denied = await refused(bob, take_over=True)
    assert denied.message == (
        "consumer ui belongs to another principal; use another consumer_id, "
        "or a credential that has the scope runs:take-over"
    )
    await append(alice, a_run_of(4))
    assert (await read_to_end(held)).sequences == [1, 2, 3, 4]


async def test_a_stream_that_displaced_another_principals_is_its_new_owners(as_: As) -> None:
    alice, carol = await as_("alice"), await as_("carol")
    await create(alice)
    await opened(alice, session_id="one", attempt=1)
    held = await opened(carol, session_id="two", attempt=1, take_over=True)
    assert (await refused(alice, session_id="three", take_over=True)).reason == "PERMISSION_DENIED"
    await opened(carol, session_id="two", attempt=2)
    assert (await failure(held)).reason == "STREAM_DISPLACED"


async def test_a_stream_over_http_is_not_taken_over_by_another_principal(as_: As, principals_server: Server) -> None:
    alice = await as_("alice")
    await create(alice)
    await append(alice, a_run_of(3, finished=False))
    await opened(alice)
    url = f"http://{principals_server.app.http_address}/api/v1/runs/run/stream?consumer=ui&take_over=true"
    async with httpx.AsyncClient(timeout=20) as web:
        response = await web.get(url, headers={"Authorization": "Bearer bob"})
        assert (response.status_code, response.json()["error"]["reason"]) == (403, "PERMISSION_DENIED")
        busy = await web.get(url.replace("true", "false"), headers={"Authorization": "Bearer bob"})
        assert (busy.status_code, busy.json()["error"]["reason"]) == (409, "CONSUMER_BUSY")
