"""The ledger: what events add up to, and what is carried from segment to segment."""

import json

from lavant.contract.limits import MAX_BATCH_BYTES
from lavant.internal.v1.system_record_pb2 import SamplesAssigned, SamplesReturned, SystemRecord
from lavant.server.evaluation.ledger import DIGEST_MARK, MOST_GAPS, Gap, Ledger, Pass, Window
from lavant.server.evaluation.log import Record
from lavant.server.evaluation.rules import MOST_WINDOWS
from lavant.server.evaluation.sampler import HEAVIEST, PAGE, selected
from lavant.server.evaluation.stream import MOST_SESSIONS
from lavant.server.store.system_logs import system_event
from lavant.server.streaming.frames import timestamp
from lavant.v1.event_pb2 import Event, RowFinished
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Error

FAR = 2**390
FAR_NS = 9 * 10**18


def chosen(*run_ids: str, examined: int = 0, position: int = 1) -> Event:
    """Return the record of runs that were selected as they finished."""
    return selected(run_ids, examined or len(run_ids), live=str(position))


def leased(session_id: str, *run_ids: str, until: int = 100) -> Event:
    """A session holds runs, until a time in nanoseconds."""
    expire_time = timestamp(until)
    assigned = SamplesAssigned(session_id=session_id, run_ids=run_ids, expire_time=expire_time)
    return system_event(SystemRecord(samples_assigned=assigned))


def returned(run_id: str, *, error: bool = False, retry_ns: int = 0) -> Event:
    """A sample waits again."""
    event = SamplesReturned(run_ids=[run_id], error=Error(message="no") if error else None)
    if retry_ns:
        event.retry_time.CopyFrom(timestamp(retry_ns))
    return system_event(SystemRecord(samples_returned=event))


def finished(run_id: str, *, error: bool = False, digest: str = "d") -> Event:
    """A sample is done."""
    row = RowFinished(row_id=run_id, iteration=1, error=Error(message="no") if error else None)
    return Event(event_id=f"lavant.7{DIGEST_MARK}{digest}", row_finished=row)


def ledger_of(*events: Event, carried: object = None) -> Ledger:
    """The ledger of some events."""
    ledger = Ledger(1, carried)
    for event in events:
        ledger.fold(event)
    return ledger


def free(ledger: Ledger, now_ns: int = 50) -> list[str]:
    """Return the runs that can be assigned, in order."""
    return [sample.run_id for sample in ledger.free(now_ns)]


def test_samples_are_free_in_the_order_of_their_selection() -> None:
    ledger = ledger_of(chosen("c", "a"), chosen("b", examined=10, position=FAR))
    assert free(ledger) == ["c", "a", "b"]
    assert (ledger.position, ledger.examined, ledger.selected, ledger.waiting) == (FAR, 12, 3, 3)


def test_what_is_held_is_free_again_behind_its_time_and_in_its_place() -> None:
    ledger = ledger_of(chosen("a", "b", "c"), leased("one", "b"))
    assert free(ledger, 99) == ["a", "c"]
    assert free(ledger, 100) == ["a", "b", "c"]
    assert ledger.has_free(100)
    assert ledger.next_due_ns(50) == 100
    ledger.fold(leased("one", until=200))
    assert free(ledger, 100) == ["a", "c"]
    ledger.fold(leased("two", "b"))
    assert [sample.attempts for sample in ledger.held_by("two")] == [2]
    assert ledger.held_by("one") == []


def test_assignments_are_numbered() -> None:
    ledger = ledger_of(chosen("a", "b", "c"), leased("one", "c", "a"), leased("one", "b"))
    assert [(sample.run_id, sample.number) for sample in ledger.held_by("one")] == [("c", 1), ("a", 2), ("b", 3)]


def test_a_failure_waits_and_counts_and_a_return_does_neither() -> None:
    ledger = ledger_of(chosen("a", "b"), leased("one", "a", "b"))
    ledger.fold(returned("a", error=True, retry_ns=70))
    ledger.fold(returned("b"))
    assert free(ledger, 69) == ["b"]
    assert free(ledger, 70) == ["a", "b"]
    assert ledger.next_due_ns(50) == 70
    assert not ledger_of(chosen("a"), leased("o", "a"), returned("a", error=True, retry_ns=70)).has_free(60)
    assert [ledger.samples[run_id].attempts for run_id in "ab"] == [1, 0]


def test_what_is_done_is_counted_and_what_was_said_is_known() -> None:
    ledger = ledger_of(chosen("a", "b"), leased("one", "a", "b"), finished("a"), finished("b", error=True, digest="e"))
    assert (ledger.evaluated, ledger.failed, ledger.rows, ledger.waiting) == (1, 1, 2, 0)
    assert ledger.is_reported("d")
    assert ledger.is_reported("e")
    assert not ledger.is_reported("f")


def test_a_sample_is_not_selected_again() -> None:
    ledger = ledger_of(chosen("a"), leased("one", "a"), chosen("a", "b"))
    assert (ledger.selected, [*ledger.samples]) == (2, ["a", "b"])
    assert [sample.run_id for sample in ledger.held_by("one")] == ["a"]


def test_what_is_carried_over_is_all_that_matters() -> None:
    events = [chosen("a", "b", "c", position=FAR), leased("one", "b"), leased("one", "a"), finished("a")]
    ledger = ledger_of(*events, leased("two", "c"), returned("c", error=True, retry_ns=60))
    ledger.gaps = [Gap(1, FAR, (Window(None, 5),)), Gap(FAR, FAR + 1)]
    ledger.backfill = Pass(Window(3, None), 2, 1, FAR, 4, 2)
    after = Ledger(2, json.loads(json.dumps(ledger.carry())))
    assert after.carry() == ledger.carry()
    assert (after.samples, after.sessions) == (ledger.samples, {"one": 100})
    assert (after.holding, after.retries, after.backfill, after.gaps) == (
        ledger.holding,
        ledger.retries,
        ledger.backfill,
        ledger.gaps,
    )
    assert (after.sequence, after.rows, after.is_reported("d")) == (0, 0, False)


def test_a_copy_goes_its_own_way() -> None:
    ledger = ledger_of(chosen("a", "b"), leased("one", "a"))
    before = ledger.carry()
    copy = ledger.copy()
    for event in (finished("a"), leased("two", "b"), chosen("c")):
        copy.fold(event)
    assert ledger.carry() == before
    assert not ledger.is_reported("d")
    assert copy.carry() != before


def test_a_backfill_passes_through_the_gaps() -> None:
    ledger = Ledger(1)
    ledger.gaps = [Gap(0, 10), Gap(20, 30)]
    ledger.backfill = Pass(Window(None, 7), 2, position=0)
    ledger.fold(selected(["a"], 2, backfill=str(5)))
    assert (ledger.backfill.at, ledger.backfill.position) == (0, 5)
    ledger.fold(selected([], 1, backfill=str(10)))
    assert (ledger.backfill.at, ledger.backfill.position, ledger.backfill.done) == (1, 20, False)
    ledger.fold(selected(["b"], 1, backfill=str(30)))
    assert ledger.backfill.done
    assert (ledger.backfill.examined, ledger.backfill.selected, ledger.examined, ledger.position) == (4, 2, 4, 0)
    assert [gap.windows for gap in ledger.gaps] == [(Window(None, 7),)] * 2


def test_a_gap_that_was_examined_is_removed() -> None:
    ledger = Ledger(1)
    ledger.gaps = [Gap(0, 10)]
    ledger.backfill = Pass(Window(None, None), 1)
    ledger.fold(selected([], 1, backfill=str(10)))
    assert (ledger.gaps, ledger.backfill.done) == ([], True)


def test_what_is_carried_over_fits_in_an_event() -> None:
    ledger = Ledger(10**6)
    number = 0
    while ledger.weight < HEAVIEST:
        ledger.fold(chosen(f"{number:036}"))
        number += 1
    ledger.fold(chosen(*(f"{n:0256}" for n in range(PAGE))))
    for n, sample in enumerate(tuple(ledger.samples)):
        ledger.fold(leased(f"{n % MOST_SESSIONS:0256}", sample, until=FAR_NS))
    assert len(ledger.sessions) == MOST_SESSIONS
    ledger.position = FAR
    each = MOST_WINDOWS // MOST_GAPS
    ledger.gaps = [Gap(FAR, FAR, (Window(FAR_NS, FAR_NS),) * each) for _ in range(MOST_GAPS)]
    rule = Rule(rule_id="r" * 96, salt='"' * 128, labels={"a": '"' * 25_000, "b": "b" * 39_000})
    record = Record(rule=rule, segment=10**6, carried=ledger.carry()).encode()
    assert len(record.encode()) < MAX_BATCH_BYTES - 4_096
    assert Record.decode(record).ledger().carry() == ledger.carry()


def test_sessions_that_hold_nothing_are_forgotten() -> None:
    ledger = ledger_of(chosen("a", "b"), leased("one", "a"), leased("two", "b"), leased("three", "b"), finished("a"))
    assert list(ledger.sessions) == ["three"]
    ledger.fold(leased("one"))
    ledger.fold(returned("b"))
    assert not ledger.sessions


def test_a_clock_that_was_set_back_keeps_nothing() -> None:
    hour = 3_600_000_000_000
    ledger = ledger_of(chosen("a", "b"), leased("one", "a", until=hour), leased("one", "b", until=hour))
    ledger.fold(returned("b", error=True, retry_ns=hour))
    assert free(ledger, hour - 1) == []
    assert free(ledger, 5) == ["a", "b"]
    assert ledger.has_free(5)
    assert ledger.next_due_ns(5) is None
