"""AppendEvents: exactly once, atomic, sealed."""

import pytest

from lavant.v1.error_pb2 import ProducerConflict, ProducerFenced, ProducerGap
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import BatchReceipt
from lavant.v1.run_pb2 import RunState
from support.calls import append, create, ended_run, get, listed
from support.clock import ManualClock
from support.engines import bare
from support.events import a_run_of, custom, message_started, run_finished, run_started, text_delta
from support.server import Server
from support.status import refused


async def test_events_are_numbered_and_stored_as_sent(timed_server: Server, clock: ManualClock) -> None:
    events = a_run_of(9)
    await create(timed_server.stubs)

    first = await append(timed_server.stubs, events[:3])
    clock.advance(1)
    second = await append(timed_server.stubs, events[3:], first=4)

    assert first == BatchReceipt(last_producer_sequence=3, first_sequence=1, last_sequence=3)
    assert second == BatchReceipt(last_producer_sequence=9, first_sequence=4, last_sequence=9)
    stored = await listed(timed_server.stubs)
    assert bare(stored) == events
    assert [event.sequence for event in stored] == list(range(1, 10))
    assert stored[3].record_time.ToNanoseconds() == clock.time_ns()


async def test_a_resent_batch_is_stored_once_and_answered_as_at_first(server: Server) -> None:
    events = a_run_of(9, finished=False)
    await create(server.stubs)
    first = await append(server.stubs, events[:5])
    await append(server.stubs, [custom()], producer_id="other")
    second = await append(server.stubs, events[5:], first=6)

    for sent, numbers, answer in ((events[:5], 1, first), (events[5:], 6, second)):
        again = await append(server.stubs, sent, first=numbers)
        answer.duplicate = True
        assert again == answer
    assert second.first_sequence == 7
    assert len(await listed(server.stubs)) == 10


async def test_events_cut_into_other_batches_are_the_same_events(server: Server) -> None:
    events = a_run_of(9, finished=False)
    await create(server.stubs)
    for start in (0, 3, 6):
        await append(server.stubs, events[start : start + 3], first=start + 1)

    again = await append(server.stubs, events[1:8], first=2)

    assert again == BatchReceipt(last_producer_sequence=8, first_sequence=2, last_sequence=8, duplicate=True)


async def test_a_duplicate_is_recognised_after_the_end(server: Server) -> None:
    events = a_run_of(5)
    await create(server.stubs)
    await append(server.stubs, events)
    assert (await append(server.stubs, events)).duplicate


async def test_a_gap_says_where_to_go_on(server: Server) -> None:
    events = a_run_of(9)
    await create(server.stubs)
    with refused("PRODUCER_GAP") as refusal:
        await append(server.stubs, events[3:], first=4)
    assert refusal.detail(ProducerGap) == ProducerGap(expected_producer_sequence=1)

    await append(server.stubs, events[:3])
    with refused("PRODUCER_GAP") as refusal:
        await append(server.stubs, events[5:], first=6)
    assert refusal.detail(ProducerGap) == ProducerGap(expected_producer_sequence=4)
    assert len(await listed(server.stubs)) == 3


async def test_a_batch_that_begins_with_stored_events_must_not_go_beyond_them(server: Server) -> None:
    events = a_run_of(9)
    await create(server.stubs)
    await append(server.stubs, events[:5])
    with refused("PRODUCER_GAP") as refusal:
        await append(server.stubs, events[3:7], first=4)
    assert refusal.detail(ProducerGap) == ProducerGap(expected_producer_sequence=6)


@pytest.mark.parametrize("changed", [text_delta("other"), custom()], ids=["text", "type"])
async def test_other_content_under_a_stored_number_is_a_conflict(server: Server, changed: Event) -> None:
    events = a_run_of(6, finished=False)
    await create(server.stubs)
    await append(server.stubs, events)
    with refused("PRODUCER_CONFLICT") as refusal:
        await append(server.stubs, [*events[:4], changed, events[5]])
    assert refusal.detail(ProducerConflict).producer_sequence == 5
    assert bare(await listed(server.stubs)) == events


async def test_a_higher_epoch_fences_the_lower_one_off(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()], epoch=3)
    assert (await append(server.stubs, [custom()], epoch=5)).last_sequence == 2

    for batch in ([custom()], []):
        with refused("PRODUCER_FENCED") as refusal:
            await append(server.stubs, batch, epoch=3, first=2)
        assert refusal.detail(ProducerFenced).epoch == 5
    assert (await append(server.stubs, [custom()], epoch=5, first=2)).last_sequence == 3


async def test_producers_of_one_run_count_for_themselves(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()], producer_id="a")
    assert (await append(server.stubs, [custom(), custom()], producer_id="b")).last_sequence == 3
    assert (await append(server.stubs, [custom()], producer_id="a", first=2)).last_sequence == 4


@pytest.mark.parametrize("position", [0, 4, 9])
async def test_a_bad_event_leaves_nothing_of_its_batch(server: Server, position: int) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started(), message_started()])
    batch = [text_delta() for _ in range(9)]
    batch.insert(position, Event(event_id="bad", event_time=batch[0].event_time))
    before = await get(server.stubs)

    with refused("INVALID_FIELD", f"batch.events[{position}].payload"):
        await append(server.stubs, batch, first=3)

    assert await get(server.stubs) == before
    del batch[position]
    assert (await append(server.stubs, batch, first=3)).last_sequence == 11


async def test_what_a_bad_batch_began_is_not_begun(server: Server) -> None:
    await create(server.stubs)
    with refused("INVALID_FIELD", "batch.events[2].text_delta.message_id"):
        await append(server.stubs, [run_started(), message_started("m"), text_delta(message_id="n")])
    assert (await get(server.stubs)).state == RunState.RUN_STATE_QUEUED
    with refused("INVALID_FIELD", "batch.events[0].text_delta"):
        await append(server.stubs, [text_delta()])


async def test_nothing_follows_run_finished(server: Server) -> None:
    await ended_run(server.stubs)
    for numbers in ({"first": 5}, {"producer_id": "other"}, {"epoch": 1}):
        with refused("RUN_SEALED"):
            await append(server.stubs, [custom()], **numbers)

    await create(server.stubs, "other")
    with refused("INVALID_FIELD", "batch.events[2]"):
        await append(server.stubs, [run_started(), run_finished(), custom()], run_id="other")
    assert (await get(server.stubs, "other")).last_sequence == 0


async def test_an_empty_batch_is_a_sign_of_life(timed_server: Server, clock: ManualClock) -> None:
    await create(timed_server.stubs)
    assert await append(timed_server.stubs) == BatchReceipt()
    await append(timed_server.stubs, a_run_of(3, finished=False))
    clock.advance(7)

    receipt = await append(timed_server.stubs)

    assert receipt == BatchReceipt(last_producer_sequence=3)
    run = await get(timed_server.stubs)
    assert run.producer_seen_time.ToNanoseconds() == clock.time_ns()
    assert run.update_time.ToNanoseconds() == clock.time_ns() - 7_000_000_000
    assert run.last_sequence == 3


async def test_a_heartbeat_returns_the_last_number_of_its_producer(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, a_run_of(3, finished=False))
    for numbers, last in (({}, 3), ({"producer_id": "new"}, 0), ({"epoch": 1}, 0), ({"first": 77}, 3)):
        assert (await append(server.stubs, **numbers)).last_producer_sequence == last


async def test_an_ended_run_takes_signs_of_life_without_changing(timed_server: Server, clock: ManualClock) -> None:
    await ended_run(timed_server.stubs)
    before = await get(timed_server.stubs)
    clock.advance(7)
    assert (await append(timed_server.stubs)).last_producer_sequence == 4
    assert await get(timed_server.stubs) == before
