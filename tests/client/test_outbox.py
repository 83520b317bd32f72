"""Batches: numbered, held until their receipt, sent again identically."""

import pytest

from lavant.client import InvalidField, RunSealed
from lavant.client._outbox import FULL_EVENTS, MAX_BATCH_BYTES, MAX_IN_FLIGHT, Outbox
from lavant.contract.limits import MAX_BATCH_EVENTS
from lavant.v1.event_pb2 import CustomEvent, Event
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch


def outbox(max_bytes: int = 8 << 20) -> Outbox:
    return Outbox("run", "producer", 1, max_bytes)


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
    sign = box.sign_of_life()
    assert (sign.first_producer_sequence, len(sign.events)) == (1, 0)
    box.put(event())
    assert sent(box).first_producer_sequence == 1


def test_what_is_held_is_bounded_until_receipts_come() -> None:
    box = outbox(max_bytes=100)
    assert box.has_room()
    box.put(event(size=200))
    assert not box.has_room()
    sent(box)
    assert not box.has_room()
    box.acknowledge(receipt(1))
    assert box.has_room()


def test_after_a_failure_nothing_is_taken() -> None:
    box = outbox()
    box.fail(RunSealed("over"))
    box.fail(InvalidField("later"))
    with pytest.raises(RunSealed):
        box.put(event())
