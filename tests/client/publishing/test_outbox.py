"""Batches: numbered, held until their receipt, sent again identically."""

from typing import Any

import pytest

from lavant.client import InvalidField, RunSealed
from lavant.client._publishing.outbox import FULL_EVENTS, HEAD_START, LINGER, MAX_BATCH_BYTES, MAX_IN_FLIGHT, Outbox
from lavant.contract.limits import MAX_BATCH_EVENTS
from lavant.v1.event_pb2 import CustomEvent, Event, RunStarted
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch
from lavant.v1.run_pb2 import RunFinished, RunSettings, RunState


class Clock:
    """Clock in seconds. A second passes whenever it is read, unless it stands still."""

    def __init__(self, *, stands_still: bool = False) -> None:
        self.now = 0.0
        self._stands_still = stands_still

    def __call__(self) -> float:
        self.now += not self._stands_still
        return self.now


def outbox(max_bytes: int = 8 << 20, clock: Clock | None = None) -> Outbox:
    return Outbox("run", "producer", 1, max_bytes, monotonic=clock or Clock())


def event(name: str = "a.b", size: int = 0) -> Event:
    made = Event(event_id=name, custom=CustomEvent(name=name, value_json='"' + "x" * size + '"'))
    made.event_time.FromSeconds(1)
    return made


def sent(box: Outbox) -> ProducerBatch:
    batch = box.next_batch()
    assert batch is not None
    return batch


def receipt(last: int) -> BatchReceipt:
    return BatchReceipt(last_producer_sequence=last, first_sequence=1, last_sequence=last)


def test_an_idle_producer_waits_for_nothing() -> None:
    box = outbox()
    box.put(event())
    batch = sent(box)
    assert (batch.run_id, batch.producer_id, batch.producer_epoch) == ("run", "producer", 1)
    assert (batch.first_producer_sequence, len(batch.events)) == (1, 1)


def test_what_queues_meanwhile_goes_together() -> None:
    box = outbox()
    box.put(event())
    sent(box)
    for _ in range(5):
        box.put(event())
    assert box.next_batch() is None
    assert box.acknowledge(receipt(1))
    batch = sent(box)
    assert (batch.first_producer_sequence, len(batch.events)) == (2, 5)


def lingering() -> tuple[Outbox, Clock]:
    """Return an outbox that has just had the receipt of its first batch, with another event queued, and its clock."""
    clock = Clock(stands_still=True)
    box = outbox(clock=clock)
    box.put(event())
    clock.now = HEAD_START
    sent(box)
    box.acknowledge(receipt(1))
    box.put(event())
    return box, clock


def test_events_that_follow_closely_go_together() -> None:
    box, clock = lingering()
    assert (box.next_batch(), box.due) == (None, HEAD_START + LINGER)
    box.put(event())
    clock.now = HEAD_START + LINGER
    assert len(sent(box).events) == 2


def test_events_that_follow_later_do_not_wait() -> None:
    box, clock = lingering()
    clock.now = 10.0
    assert len(sent(box).events) == 1


def test_a_full_batch_does_not_wait_for_its_time() -> None:
    box, _ = lingering()
    for _ in range(FULL_EVENTS - 1):
        assert box.next_batch() is None
        box.put(event())
    assert len(sent(box).events) == FULL_EVENTS


def test_a_hurried_batch_does_not_wait_for_its_time() -> None:
    box, _ = lingering()
    box.skip_delay()
    assert len(sent(box).events) == 1
    box.acknowledge(receipt(2))
    box.put(event())
    assert box.next_batch() is None


def test_the_sender_has_to_act_at_the_first_event_and_at_a_full_batch() -> None:
    box, _ = lingering()
    demands = [box.demand]
    grown: list[bool] = []
    assert box.has_grown()
    for _ in range(FULL_EVENTS):
        box.put(event())
        demands.append(box.demand)
        grown.append(box.has_grown())
    assert (grown.index(True), grown.count(True)) == (FULL_EVENTS - 2, 1)
    assert demands == [(box.due, False)] * (FULL_EVENTS - 1) + [(box.due, True)] * 2


def run_event(**payload: Any) -> Event:
    made = Event(event_id="e", **payload)
    made.event_time.FromSeconds(1)
    return made


def test_the_first_batch_waits_for_the_end_of_a_short_run() -> None:
    clock = Clock(stands_still=True)
    box = outbox(clock=clock)
    box.put(run_event(run_started=RunStarted()))
    assert (box.next_batch(), box.due, box.last_batch()) == (None, HEAD_START, None)
    box.put(event(), run_event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)))
    batch = box.last_batch()
    assert batch is not None
    assert len(batch.events) == 3
    box.rewind()
    assert box.last_batch() == batch
    box.acknowledge(receipt(3))
    assert (box.last_batch(), box.is_empty) == (None, True)


def test_an_ended_run_of_several_batches_has_no_last_one_until_they_are_stored() -> None:
    box = outbox()
    box.put(run_event(run_started=RunStarted()))
    for _ in range(MAX_BATCH_EVENTS):
        box.put(event())
    box.put(run_event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)))
    assert box.last_batch() is None
    assert len(sent(box).events) == MAX_BATCH_EVENTS
    box.acknowledge(receipt(MAX_BATCH_EVENTS))
    assert box.last_batch() is not None


def test_shedding_recalls_batches_of_a_run_that_may_not_exist() -> None:
    for is_created in (False, True):
        box = Outbox("run", "producer", 1, 8 << 20, settings=RunSettings(name="agent"), monotonic=Clock())
        if is_created:
            box.acknowledge(BatchReceipt())
        box.put(run_event(run_started=RunStarted()))
        for _ in range(10):
            box.put(event())
        box.put(run_event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)))
        whole = box.last_batch()
        assert box.drop_unsent() == (0 if is_created else 10)
        box.rewind()
        batch = box.last_batch()
        assert batch is not None
        assert (batch.first_producer_sequence, batch == whole) == (1, is_created)
        assert (len(batch.events), box.count) == ((12, 12) if is_created else (3, 3))
        box.acknowledge(receipt(len(batch.events)))
        assert box.size == 0


def test_batches_create_the_run_until_the_first_receipt() -> None:
    settings = RunSettings(name="agent")
    box = Outbox("run", "producer", 1, 8 << 20, settings=settings, monotonic=Clock())
    box.put(event())
    assert sent(box).create == settings
    assert box.heartbeat().create == settings
    box.acknowledge(receipt(1))
    box.put(event())
    assert not sent(box).HasField("create")
    assert not box.heartbeat().HasField("create")


def test_full_batches_do_not_wait_but_are_bounded() -> None:
    box = outbox()
    for _ in range(FULL_EVENTS * (MAX_IN_FLIGHT + 2)):
        box.put(event())
        box.next_batch()
    in_flight = 0
    box.rewind()
    while box.next_batch():
        in_flight += 1
    assert in_flight == MAX_IN_FLIGHT


def test_batches_keep_the_contracts_limits() -> None:
    box = outbox(1 << 30)
    for _ in range(2_500):
        box.put(event(size=10))
    assert len(sent(box).events) == MAX_BATCH_EVENTS
    box = outbox(1 << 30)
    for _ in range(30):
        box.put(event(size=100_000))
    batch = sent(box)
    assert 0 < batch.ByteSize() < 1 << 20
    assert len(batch.events) == MAX_BATCH_BYTES // 100_000


def test_an_event_beyond_the_limits_is_refused_alone() -> None:
    box = outbox()
    with pytest.raises(InvalidField):
        box.put(event(size=1 << 20))
    assert box.is_empty


def test_after_a_cut_the_same_bytes_are_sent_again() -> None:
    box = outbox()
    for number in range(FULL_EVENTS * 3):
        box.put(event(f"e.{number}"))
    first = [sent(box).SerializeToString(deterministic=True)]
    box.put(event("late"))
    box.rewind()
    again = [sent(box).SerializeToString(deterministic=True)]
    assert again == first
    assert box.holds(1)
    assert not box.holds(2)


def test_a_receipt_covers_all_before_it() -> None:
    box = outbox()
    for _ in range(MAX_BATCH_EVENTS + FULL_EVENTS):
        box.put(event())
    sent(box)
    sent(box)
    assert box.acknowledge(receipt(MAX_BATCH_EVENTS + FULL_EVENTS))
    assert box.is_empty
    assert box.last_receipt is not None
    assert box.last_receipt.last_producer_sequence == MAX_BATCH_EVENTS + FULL_EVENTS


def test_a_receipt_of_a_sign_of_life_is_no_receipt_of_events() -> None:
    box = outbox()
    box.put(event())
    sent(box)
    assert not box.acknowledge(BatchReceipt())
    assert box.last_receipt is None
    assert box.is_waiting


def test_a_sign_of_life_takes_no_number() -> None:
    box = outbox()
    sign = box.heartbeat()
    assert (sign.first_producer_sequence, len(sign.events)) == (1, 0)
    box.put(event())
    assert sent(box).first_producer_sequence == 1


def test_what_is_held_is_bounded_until_receipts_come() -> None:
    box = outbox(max_bytes=100)
    assert box.has_capacity()
    box.put(event(size=200))
    assert not box.has_capacity()
    sent(box)
    assert not box.has_capacity()
    box.acknowledge(receipt(1))
    assert box.has_capacity()


def test_after_a_failure_nothing_is_taken() -> None:
    box = outbox()
    box.fail(RunSealed("over"))
    box.fail(InvalidField("later"))
    with pytest.raises(RunSealed):
        box.put(event())
