"""A producer belongs to the principal that published under it last."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lavant.server.app import access
from lavant.server.auth.principal import Principal
from lavant.v1.event_pb2 import Event
from server.auth.conftest import As
from support.calls import answer, append, create, listed, publish, publishing
from support.events import a_run_of, run_finished, text_delta
from support.principals import calling_as, knowing
from support.server import Stubs, serving
from support.status import refused, rejection

LAST_EPOCH = 2**63 - 1
RECORDED = a_run_of(3, finished=False)


async def started(alice: Stubs) -> None:
    """Record the start of a run, as alice's producer "p"."""
    await create(alice)
    await append(alice, RECORDED)


@pytest.mark.parametrize(
    ("events", "numbers"),
    [
        ([text_delta()], {"first": 1, "epoch": LAST_EPOCH}),
        ([text_delta()], {"first": 4}),
        ([text_delta()], {"first": 9}),
        (RECORDED, {"first": 1}),
        ([], {"first": 1}),
        ([run_finished()], {"first": 1, "epoch": 1}),
    ],
    ids=["last-epoch", "next-number", "gap", "same-batch", "heartbeat", "end-of-run"],
)
async def test_a_batch_of_another_principal_is_refused(
    as_: As, events: Iterable[Event], numbers: dict[str, Any]
) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await started(alice)
    with refused("PERMISSION_DENIED") as denied:
        await append(bob, events, **numbers)
    assert denied.status.message == (
        "producer p belongs to another principal; use another producer_id, "
        "or a credential that has the scope runs:take-over"
    )
    assert denied.metadata == {"scope": "runs:take-over"}
    async with publishing(bob) as call:
        await publish(call, events, **numbers)
        rejection((await answer(call)).rejection, "PERMISSION_DENIED")
    assert (await append(alice, [text_delta(), run_finished()], first=4)).last_sequence == 5


async def test_another_principal_publishes_as_a_producer_of_its_own(as_: As) -> None:
    alice, bob = await as_("alice"), await as_("bob")
    await started(alice)
    assert (await append(bob, [text_delta()], producer_id="q")).last_sequence == 4
    with refused("PERMISSION_DENIED"):
        await append(alice, [text_delta()], producer_id="q", first=2)


async def test_another_credential_of_the_same_principal_continues_its_producer(as_: As) -> None:
    alice, again = await as_("alice"), await as_("alice-2")
    await started(alice)
    assert (await append(again, RECORDED)).duplicate
    assert (await append(again, [text_delta()], first=4)).last_sequence == 4
    assert (await append(alice, [text_delta()], epoch=1)).last_sequence == 5


async def test_a_principal_with_the_scope_takes_a_producer_over(as_: As) -> None:
    alice, carol = await as_("alice"), await as_("carol")
    await started(alice)
    assert (await append(carol, [text_delta()], epoch=1)).last_sequence == 4
    with refused("PERMISSION_DENIED"):
        await append(alice, [text_delta()], epoch=2)
    with refused("PRODUCER_FENCED"):
        await append(carol, [text_delta()], first=4)
    assert (await append(carol, [run_finished()], epoch=1, first=2)).last_sequence == 5


async def test_producers_from_before_credentials_belong_to_nobody(as_: As, principals_server: Any) -> None:
    await started(principals_server.stubs)
    bob, alice = await as_("bob"), await as_("alice")
    assert (await append(bob, [text_delta()], first=4)).last_sequence == 4
    with refused("PERMISSION_DENIED"):
        await append(alice, [text_delta()], first=5)


async def test_a_producers_owner_survives_a_restart(
    tmp_path: Path, overrides: dict[str, Any], principals: list[Principal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "open_to_all", knowing(*principals))
    async with serving(tmp_path, **overrides) as server, calling_as(server.target, "alice") as alice:
        await started(alice)
    async with (
        serving(tmp_path, **overrides) as server,
        calling_as(server.target, "alice") as alice,
        calling_as(server.target, "bob") as bob,
    ):
        with refused("PERMISSION_DENIED"):
            await append(bob, [run_finished()], epoch=LAST_EPOCH)
        await append(alice, [text_delta(), run_finished()], first=4)
        assert len(await listed(alice)) == 5
