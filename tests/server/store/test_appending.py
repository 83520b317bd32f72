"""AppendEvents, put through every engine: order, exactly once, atomicity, sealing."""

import asyncio

import pytest

from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.server.model import RunKey
from lavant.server.store.port import Engine
from lavant.v1.error_pb2 import ProducerConflict, ProducerFenced, ProducerGap
from lavant.v1.run_pb2 import Run, RunState
from support.clock import ManualClock
from support.engines import KEY, bare, created, refused, started, stored
from support.events import a_run_of, batch_of, run_finished, run_started, text_delta


async def test_events_are_numbered_and_read_back_as_sent(engine: Engine) -> None:
    await created(engine)
    events = a_run_of(10)
    receipt = await engine.append(KEY, batch_of(events))
    assert (receipt.first_sequence, receipt.last_sequence, receipt.last_producer_sequence) == (1, 10, 10)
    assert not receipt.duplicate
    found = await stored(engine)
    assert [event.sequence for event in found] == list(range(1, 11))
    assert bare(found) == events


async def test_appends_take_effect_in_the_order_of_the_calls(engine: Engine) -> None:
    await started(engine)
    receipts = [engine.append(KEY, batch_of([text_delta(str(n))], first=n)) for n in range(3, 203)]
    answers = await asyncio.gather(*receipts)
    assert [answer.last_sequence for answer in answers] == list(range(3, 203))
    assert [event.text_delta.text for event in await stored(engine, after=2)] == [str(n) for n in range(3, 203)]


async def test_a_run_can_be_appended_to_before_its_creation_is_durable(engine: Engine) -> None:
    creation = asyncio.ensure_future(engine.create_run(KEY, Run(name="weather")))
    await asyncio.sleep(0)
    receipt = await engine.append(KEY, batch_of([run_started()]))
    assert receipt.last_sequence == 1
    assert (await creation).state == RunState.RUN_STATE_QUEUED


async def test_producers_number_their_batches_on_their_own(engine: Engine) -> None:
    await started(engine)
    await engine.append(KEY, batch_of([text_delta()], producer_id="q"))
    receipt = await engine.append(KEY, batch_of([text_delta()], first=3))
    assert (receipt.last_producer_sequence, receipt.last_sequence) == (3, 4)


async def test_a_repeated_batch_gets_its_first_answer(engine: Engine) -> None:
    await started(engine)
    sent = [text_delta("a"), text_delta("b")]
    first = await engine.append(KEY, batch_of(sent, first=3))
    await engine.append(KEY, batch_of([text_delta("c")], first=5))
    again = await engine.append(KEY, batch_of(sent, first=3))
    assert again.duplicate
    again.duplicate = False
    assert again == first
    assert len(await stored(engine)) == 5


async def test_a_batch_repeated_while_the_first_is_under_way_is_stored_once(engine: Engine) -> None:
    await started(engine)
    sent = [text_delta("a")]
    first, again = await asyncio.gather(
        engine.append(KEY, batch_of(sent, first=3)), engine.append(KEY, batch_of(sent, first=3))
    )
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.last_sequence == again.last_sequence == 3
    assert len(await stored(engine)) == 3


async def test_a_batch_repeated_among_many_under_way_is_stored_once(engine: Engine) -> None:
    await started(engine)
    await stored(engine)
    sent = [batch_of([text_delta()], first=number) for number in range(3, 23)]
    again = [batch_of(batch.events, first=batch.first_producer_sequence) for batch in sent]
    receipts = await asyncio.gather(*(engine.append(KEY, batch) for batch in [*sent, *again]))
    assert [receipt.last_sequence for receipt in receipts] == [*range(3, 23), *range(3, 23)]
    assert [receipt.duplicate for receipt in receipts] == [False] * 20 + [True] * 20


async def test_what_is_stored_may_be_repeated_in_other_batches(engine: Engine) -> None:
    await started(engine)
    sent = [text_delta(str(n)) for n in range(6)]
    await engine.append(KEY, batch_of(sent[:2], first=3))
    await engine.append(KEY, batch_of([text_delta("other")], producer_id="q"))
    await engine.append(KEY, batch_of(sent[2:], first=5))
    receipt = await engine.append(KEY, batch_of(sent[1:5], first=4))
    assert (receipt.first_sequence, receipt.last_sequence, receipt.last_producer_sequence) == (4, 8, 7)


async def test_what_the_server_sets_is_no_part_of_the_content(engine: Engine) -> None:
    await started(engine)
    event = text_delta()
    await engine.append(KEY, batch_of([event], first=3))
    event.sequence = 99
    event.record_time.seconds = 5
    assert (await engine.append(KEY, batch_of([event], first=3))).duplicate


async def test_what_a_producer_set_for_the_server_is_replaced(engine: Engine, clock: ManualClock) -> None:
    await started(engine)
    event = text_delta()
    event.sequence = 99
    event.record_time.seconds, event.record_time.nanos = 5, 7
    await engine.append(KEY, batch_of([event], first=3))
    last = (await stored(engine))[-1]
    assert (last.sequence, last.record_time.ToNanoseconds()) == (3, clock.time_ns())


async def test_another_content_under_a_stored_number_is_a_conflict(engine: Engine) -> None:
    await started(engine)
    sent = [text_delta("a"), text_delta("b")]
    await engine.append(KEY, batch_of(sent, first=3))
    with refused("PRODUCER_CONFLICT") as caught:
        await engine.append(KEY, batch_of([sent[0], text_delta("B")], first=3))
    assert caught.value.detail == ProducerConflict(producer_sequence=4)


@pytest.mark.parametrize(("first", "size"), [(4, 1), (2, 2), (100, 5)])
async def test_a_gap_names_what_is_expected(engine: Engine, first: int, size: int) -> None:
    await started(engine)
    with refused("PRODUCER_GAP") as caught:
        await engine.append(KEY, batch_of([text_delta() for _ in range(size)], first=first))
    assert caught.value.detail == ProducerGap(expected_producer_sequence=3)
    assert len(await stored(engine)) == 2


async def test_a_higher_epoch_begins_at_one_and_fences_the_lower_one(engine: Engine) -> None:
    await started(engine)
    receipt = await engine.append(KEY, batch_of([text_delta()], epoch=2))
    assert (receipt.last_producer_sequence, receipt.last_sequence) == (1, 3)
    for events in ([text_delta()], []):
        with refused("PRODUCER_FENCED") as caught:
            await engine.append(KEY, batch_of(events, first=3, epoch=1))
        assert caught.value.detail == ProducerFenced(epoch=2)


async def test_a_refused_batch_leaves_no_trace(engine: Engine) -> None:
    await started(engine)
    before = await engine.get_run(KEY)
    with refused("INVALID_FIELD") as caught:
        await engine.append(KEY, batch_of([text_delta(), text_delta(message_id="unknown")], first=3))
    assert caught.value.violations[0].path == "batch.events[1].text_delta.message_id"
    assert await engine.get_run(KEY) == before
    assert (await engine.append(KEY, batch_of([text_delta()], first=3))).last_sequence == 3


async def test_run_finished_seals_the_log(engine: Engine, clock: ManualClock) -> None:
    await created(engine)
    events = a_run_of(5)
    await engine.append(KEY, batch_of(events))
    run = await engine.get_run(KEY)
    assert run.state == RunState.RUN_STATE_SUCCEEDED
    assert run.result == events[-1].run_finished
    assert run.end_time == run.update_time
    assert run.end_time.ToNanoseconds() == clock.time_ns()
    with refused("RUN_SEALED"):
        await engine.append(KEY, batch_of([text_delta()], first=6))
    assert (await engine.append(KEY, batch_of(events))).duplicate


async def test_a_sealed_log_stays_sealed_while_the_seal_is_under_way(engine: Engine) -> None:
    await started(engine)
    seal = engine.append(KEY, batch_of([run_finished()], first=3))
    with refused("RUN_SEALED"):
        await engine.append(KEY, batch_of([text_delta()], first=4))
    await seal


async def test_a_heartbeat_is_seen_and_returns_what_is_durable(engine: Engine, clock: ManualClock) -> None:
    await started(engine)
    clock.advance(5)
    receipt = await engine.append(KEY, batch_of())
    assert receipt.last_producer_sequence == 2
    run = await engine.get_run(KEY)
    assert run.producer_seen_time.ToNanoseconds() == clock.time_ns()
    assert run.update_time.ToNanoseconds() < clock.time_ns()


async def test_a_sign_of_life_changes_nothing_once_the_run_has_ended(engine: Engine, clock: ManualClock) -> None:
    await created(engine)
    await engine.append(KEY, batch_of(a_run_of(4)))
    before = await engine.get_run(KEY)
    clock.advance(5)
    assert (await engine.append(KEY, batch_of())).last_producer_sequence == 4
    assert await engine.get_run(KEY) == before


async def test_record_time_never_goes_back(engine: Engine, clock: ManualClock) -> None:
    await started(engine)
    clock.jump(-3_600)
    await engine.append(KEY, batch_of([text_delta()], first=3))
    times = [event.record_time.ToNanoseconds() for event in await stored(engine)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("batch.producer_id", {"producer_id": ""}),
        ("batch.producer_id", {"producer_id": "p" * 129}),
        ("batch.producer_id", {"producer_id": "p\n"}),
        ("batch.producer_epoch", {"epoch": -1}),
        ("batch.first_producer_sequence", {"first": 0}),
        ("batch.events", {"events": [text_delta()] * (MAX_BATCH_EVENTS + 1)}),
        ("batch", {"events": [text_delta("x" * MAX_BATCH_BYTES)]}),
    ],
)
async def test_batches_have_limits(engine: Engine, path: str, change: dict[str, object]) -> None:
    await started(engine)
    settings: dict[str, object] = {"events": [text_delta()], "first": 3} | change
    with refused("INVALID_FIELD") as caught:
        await engine.append(KEY, batch_of(**settings))  # type: ignore[arg-type]
    assert [violation.path for violation in caught.value.violations] == [path]


async def test_a_run_has_a_bounded_number_of_producers(engine: Engine) -> None:
    await started(engine)
    others = (batch_of([text_delta()], producer_id=f"q{n}") for n in range(999))
    await asyncio.gather(*(engine.append(KEY, batch) for batch in others))
    with refused("QUOTA_EXCEEDED"):
        await engine.append(KEY, batch_of([text_delta()], producer_id="one-too-many"))
    await engine.append(KEY, batch_of([text_delta()], first=3))


async def test_runs_of_other_tenants_do_not_exist(engine: Engine) -> None:
    await started(engine)
    for key in (RunKey("other", "run"), RunKey("acme", "other")):
        with refused("RUN_NOT_FOUND"):
            await engine.append(key, batch_of([text_delta()], first=3))


async def test_reading_begins_at_the_chunk_that_holds_the_next_event(engine: Engine) -> None:
    await started(engine)
    await engine.append(KEY, batch_of([text_delta() for _ in range(10)], first=3))
    await engine.append(KEY, batch_of([text_delta() for _ in range(10)], first=13))
    for after in range(23):
        events = await stored(engine, after=after, max_bytes=1)
        assert [event.sequence for event in events] == list(range(after + 1, 23))
    assert len(await engine.read(KEY, 0, 1)) == 1
    assert list(await engine.read(KEY, 22, 1)) == []
    assert list(await engine.read(KEY, 2**40, 1)) == []


async def test_nothing_is_read_of_a_run_without_events(engine: Engine) -> None:
    await created(engine)
    assert list(await engine.read(KEY, 0, 1)) == []
    with refused("RUN_NOT_FOUND"):
        await engine.read(RunKey("acme", "other"), 0, 1)
