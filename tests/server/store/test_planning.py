"""The decisions of `plan`, where they can be seen without an engine."""

from lavant.server.store.appending import (
    Appended,
    LogState,
    plan,
    plan_abandonment,
    same_content,
)
from lavant.server.store.ownership import Owner
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.run_pb2 import Run, RunState
from support.engines import refused
from support.events import (
    a_run_of,
    artifact_updated,
    batch_of,
    message_started,
    run_finished,
    run_started,
    run_state_changed,
    step_started,
    text_delta,
)


def new_log() -> LogState:
    run = Run(run_id="run", state=RunState.RUN_STATE_QUEUED)
    run.create_time.FromNanoseconds(1_000)
    return LogState(run)


def working_log() -> LogState:
    log = new_log()
    plan(log, batch_of([run_started(), message_started(), step_started(), artifact_updated()]), 2_000)
    log.cancel_reason = "enough"
    return log


def test_the_chunk_holds_what_the_batch_holds() -> None:
    batch = batch_of(a_run_of(6))
    outcome = plan(new_log(), batch, 5_000)
    assert isinstance(outcome, Appended)
    for sequence, event in enumerate(batch.events, 1):
        event.sequence = sequence
        event.record_time.FromNanoseconds(5_000)
    assert EventBatch.FromString(outcome.chunk.data).events == batch.events
    assert list(outcome.chunk.types) == [20, 30, 31, 31, 34, 22]


def test_a_change_of_state_is_reported() -> None:
    log = new_log()
    told = []
    for number, event in enumerate(
        (run_started(), text_delta(), run_state_changed(), run_state_changed(), run_finished()), 1
    ):
        if number == 2:
            event = message_started()
        outcome = plan(log, batch_of([event], first=number), 5_000)
        assert isinstance(outcome, Appended)
        told.append(outcome.state_changed)
    assert told == [True, False, True, False, True]


def test_a_refused_batch_changes_neither_the_log_nor_itself() -> None:
    log = working_log()
    batch = batch_of([step_started("other"), text_delta(), run_finished(), text_delta()], first=5)
    before = (log.run.SerializeToString(), log.encode(), batch.SerializeToString())
    with refused("INVALID_FIELD"):
        plan(log, batch, 9_000)
    assert (log.run.SerializeToString(), log.encode(), batch.SerializeToString()) == before


def test_a_producer_belongs_to_the_owner_of_its_last_batch() -> None:
    log = working_log()
    assert b'"producers":{"p":[0,4]}' in log.encode()
    alice, bob, carol = Owner("alice"), Owner("bob"), Owner("carol", may_take_over=True)
    plan(log, batch_of([text_delta()], first=5), 3_000, alice)
    log = LogState.decode(log.run, log.encode())
    assert (log.owners, log.producers) == ({"p": "alice"}, {"p": (0, 5)})
    for batch in (batch_of([text_delta()], first=6), batch_of([text_delta()], epoch=2**63 - 1), batch_of()):
        before = log.encode()
        with refused("PERMISSION_DENIED"):
            plan(log, batch, 4_000, bob)
        assert log.encode() == before
    plan(log, batch_of([text_delta()], epoch=1), 4_000, carol)
    with refused("PERMISSION_DENIED"):
        plan(log, batch_of([text_delta()], epoch=2), 4_000, alice)
    plan(log, batch_of([text_delta()], epoch=2), 4_000, Owner("", may_take_over=True))
    assert log.owners == {}


def test_a_log_survives_encoding() -> None:
    log = working_log()
    again = LogState.decode(log.run, log.encode())
    assert again.encode() == log.encode()
    assert again.producers == {"p": (0, 4)}
    assert again.content.encode() == log.content.encode()
    assert again.cancel_reason == "enough"


def test_the_numbers_of_a_run_have_an_end() -> None:
    log = working_log()
    log.run.last_sequence = 2**32 - 1
    with refused("QUOTA_EXCEEDED"):
        plan(log, batch_of([text_delta()], first=5), 9_000)


def test_an_abandoned_run_is_distinguished_from_a_failed_one() -> None:
    log = working_log()
    chunk = plan_abandonment(log, 9_000)
    (event,) = EventBatch.FromString(chunk.data).events
    assert (event.sequence, event.event_id) == (5, "server.5")
    assert log.run.result == event.run_finished
    assert log.run.state == RunState.RUN_STATE_ABANDONED
    assert log.run.producer_seen_time.ToNanoseconds() == 2_000


def test_the_order_of_maps_and_not_a_number_do_not_make_content_another() -> None:
    def event(order: list[str]) -> Event:
        made = Event(event_id="e", attributes=dict.fromkeys(order, "v"))
        made.row_finished.metrics["cost"] = float("nan")
        return made

    keys = [str(number) for number in range(20)]
    assert same_content(event(keys), event(keys[::-1]))
    assert not same_content(event(keys), event(keys[1:]))


def test_the_encoding_of_what_a_batch_does_not_change_is_kept() -> None:
    log = working_log()
    before = log.content.encode()
    plan(log, batch_of([text_delta()], first=5), 3_000)
    assert log.content.encode() is before
    plan(log, batch_of([step_started("other")], first=6), 3_000)
    assert log.content.encode() is not before


def test_producers_in_any_order_are_encoded_completely() -> None:
    log = working_log()
    wanted = {"p": (0, 4)}
    for number, producer_id in enumerate("abcabacpp", 1):
        epoch = number  # each batch begins an epoch
        plan(log, batch_of([text_delta()], producer_id=producer_id, epoch=epoch), 3_000)
        wanted[producer_id] = (epoch, 1)
        again = LogState.decode(log.run, log.encode())
        assert again.producers == log.producers == wanted
        plan(again, batch_of([text_delta()], producer_id="b", epoch=epoch + 1), 3_000)
        assert LogState.decode(log.run, again.encode()).producers == wanted | {"b": (epoch + 1, 1)}


def test_the_ids_of_producers_are_bounded_in_bytes() -> None:
    log = working_log()
    for number in range(127):
        plan(log, batch_of([text_delta()], producer_id=f"{number:03}{'é' * 125}"), 3_000)
        log = LogState.decode(log.run, log.encode()) if number % 50 == 0 else log
    plan(log, batch_of([text_delta()], producer_id="é" * 128), 3_000)
    with refused("QUOTA_EXCEEDED") as refusal:
        for number in range(1_000):
            plan(log, batch_of([text_delta()], producer_id=f"{number}{'x' * 120}"), 3_000)
    assert refusal.value.metadata == {"kind": "producer_id_bytes", "limit": "65536"}
    assert isinstance(plan(log, batch_of([text_delta()], producer_id="é" * 128, first=2), 3_000), Appended)
