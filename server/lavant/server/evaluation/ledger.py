"""Ledger of a rule: its selected samples, the sessions that hold them, and their outcomes. No I/O, no clock."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from lavant.contract.summary import Sums
from lavant.internal.v1.system_record_pb2 import SamplesAssigned, SamplesReturned, SamplesSelected
from lavant.server.store.system_logs import system_record
from lavant.v1.event_pb2 import Event, RowFinished
from lavant.v1.rule_pb2 import BackfillMode, RuleProgress
from lavant.v1.run_pb2 import Error, RunFinished, RunState

LONGEST_HOLD = 600.0  # seconds that a session may hold samples, unless it renews its hold
_LONGEST_NS = round(LONGEST_HOLD * 1e9)
DIGEST_MARK = "~"  # in the event_id, before the digest that identifies a repetition
_SAMPLE_BYTES = 64
MOST_GAPS = 100


class Window(NamedTuple):
    """Times of creation, in nanoseconds since 1970, the second one exclusive; None: unbounded."""

    after_ns: int | None
    before_ns: int | None

    def holds(self, create_ns: int) -> bool:
        """Return whether a time is within the window."""
        return (self.after_ns is None or create_ns >= self.after_ns) and (
            self.before_ns is None or create_ns < self.before_ns
        )


class Gap(NamedTuple):
    """A part of the feed of changes that the rule did not examine, except for some windows of it."""

    after: int
    until: int
    windows: tuple[Window, ...] = ()


class Pass(NamedTuple):
    """A backfill: a pass over the first `gaps` gaps; it is in gap `at`, after `position`.

    With a `mode` it examines runs that were scored, in the order of their IDs, counts as one gap, and is after `after`.
    """

    window: Window
    gaps: int
    at: int = 0
    position: int = 0
    examined: int = 0
    selected: int = 0
    mode: "BackfillMode.ValueType" = BackfillMode.BACKFILL_MODE_UNSPECIFIED
    after: str = ""

    @property
    def done(self) -> bool:
        """Whether all gaps were examined."""
        return self.at >= self.gaps


class Sample(NamedTuple):
    """A run to evaluate. `session_id` is its holder; empty: it waits, and not before `retry_ns` is over.

    `attempts` counts its assignments; `number` is that of the last one, among all assignments of the rule.
    """

    run_id: str
    revision: int
    attempts: int = 0
    session_id: str = ""
    number: int = 0
    retry_ns: int = 0


class Ledger:
    """State of a rule's samples: what its predecessor carried over, and the events of a segment folded onto it.

    Samples are kept and assigned in the order of their selection. A sample's session alone determines its holder: an
    expired session still holds what was not assigned to another one since.
    """

    def __init__(self, revision: int, carried: Any = None) -> None:
        """Begin a segment, of a rule at a revision, with what was carried over."""
        carried = carried or {}
        self.revision = revision
        self.sequence = 0
        self.sealed = False
        self.position = int(carried.get("position", 0))
        self.assigned: int = carried.get("assigned", 0)  # the number of the last assignment
        self.examined, self.selected, self.evaluated, self.failed = carried.get("progress", (0, 0, 0, 0))
        self.sessions: dict[str, int] = dict(carried.get("sessions", ()))  # sessions that hold samples
        holders = ["", *self.sessions]
        self.samples = {
            run_id: Sample(run_id, revision, attempts, holders[holder], *rest)
            for run_id, revision, attempts, holder, *rest in carried.get("samples", ())
        }
        self.gaps = [
            Gap(int(after), int(until), tuple(Window(*window) for window in windows))
            for after, until, windows in carried.get("gaps", ())
        ]
        self.backfill: Pass | None = None
        if backfill := carried.get("backfill"):
            window, gaps, at, position, *rest = backfill
            self.backfill = Pass(Window(*window), gaps, at, int(position), *rest)
        self.rows = 0
        self.sums = Sums()
        self.holding = Counter(sample.session_id for sample in self.samples.values() if sample.session_id)
        self.retries = {sample.run_id: sample.retry_ns for sample in self.samples.values() if sample.retry_ns}
        self.over: set[str] = set()  # sessions that samples are not assigned to any more
        self.last_error: Error | None = None
        if error := carried.get("error"):
            self.last_error = Error(type=error[0], message=error[1])
        self._reports: set[str] = set()

    def copy(self) -> "Ledger":
        """Return an independent copy."""
        other = object.__new__(Ledger)
        other.__dict__.update(self.__dict__)
        for name in ("samples", "sessions", "gaps", "holding", "retries", "over", "_reports", "sums"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def carry(self) -> dict[str, Any]:
        """Return what the next segment begins with, for JSON; positions as text, since they may have 400 bits."""
        holders = {session_id: number for number, session_id in enumerate(("", *self.sessions))}
        backfill = self.backfill
        return {
            "position": str(self.position),
            "assigned": self.assigned,
            "progress": [self.examined, self.selected, self.evaluated, self.failed],
            "samples": [
                [run_id, revision, attempts, holders[holder], *rest]
                for run_id, revision, attempts, holder, *rest in self.samples.values()
            ],
            "sessions": [*self.sessions.items()],
            "gaps": [[str(gap.after), str(gap.until), [[*window] for window in gap.windows]] for gap in self.gaps],
            "backfill": backfill and [[*backfill.window], *backfill[1:3], str(backfill.position), *backfill[4:]],
            "error": self.last_error and [self.last_error.type, self.last_error.message],
        }

    @property
    def waiting(self) -> int:
        """Number of samples that no session holds."""
        return len(self.samples) - self.holding.total()

    @property
    def weight(self) -> int:
        """About how many bytes the samples take where they are carried over."""
        return sum(map(len, self.samples)) + _SAMPLE_BYTES * len(self.samples)

    def progress(self) -> RuleProgress:
        """Return the rule's progress as the contract's message."""
        return RuleProgress(
            runs_examined=self.examined,
            runs_selected=self.selected,
            runs_evaluated=self.evaluated,
            runs_failed=self.failed,
            samples_waiting=self.waiting,
            samples_delayed=len(self.retries),
            samples_held=self.holding.total(),
            last_error=self.last_error,
        )

    def end(self) -> Event:
        """Return the event that seals the segment: with the sums of its rows."""
        return Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED, evaluation=self.sums.summary()))

    def is_reported(self, digest: str) -> bool:
        """Return whether a worker has reported this before, in this segment."""
        return digest in self._reports

    def held_by(self, session_id: str) -> list[Sample]:
        """Return the samples that a session holds, in the order of their assignment."""
        if not self.holding[session_id]:
            return []
        held = [sample for sample in self.samples.values() if sample.session_id == session_id]
        return sorted(held, key=lambda sample: sample.number)

    def free(self, now_ns: int) -> Iterator[Sample]:
        """Return the samples that can be assigned, in the order of their selection."""
        for sample in self.samples.values():
            if _is_over(self.sessions[sample.session_id] if sample.session_id else sample.retry_ns, now_ns):
                yield sample

    def delay_ns(self, now_ns: int) -> int | None:
        """Return how long until the next delayed sample is free; None: some are free, or none wait."""
        if not self.retries or self.waiting > len(self.retries):
            return None
        return max(0, min(self.retries.values()) - now_ns)

    def has_free(self, now_ns: int) -> bool:
        """Return whether a sample can be assigned."""
        later = sum(not _is_over(retry_ns, now_ns) for retry_ns in self.retries.values())
        return self.waiting > later or any(_is_over(expire_ns, now_ns) for expire_ns in self.sessions.values())

    def next_due_ns(self, now_ns: int) -> int | None:
        """Return when the next sample becomes free without an event; None: none does."""
        times = (*self.retries.values(), *self.sessions.values())
        return min((time for time in times if not _is_over(time, now_ns)), default=None)

    def skip(self, position: int) -> bool:
        """Leave the changes up to a position to a backfill; return False if there would be too many gaps."""
        if position == self.position:
            return True
        is_examined = self.backfill is None or self.backfill.done
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.until == self.position and not last.windows and is_examined:
            self.gaps[-1] = last._replace(until=position)
        elif len(self.gaps) < MOST_GAPS:
            self.gaps.append(Gap(self.position, position))
        else:
            return False
        self.position = position
        return True

    def fold(self, event: Event) -> None:
        """Apply the next event of the segment."""
        self.sequence += 1
        if (record := system_record(event)) is not None:
            match record.WhichOneof("record"):
                case "samples_selected":
                    self._selected(record.samples_selected)
                case "samples_assigned":
                    self._assigned(record.samples_assigned)
                case "samples_returned":
                    self._note(event)
                    self._returned(record.samples_returned)
                case "session_ended":
                    session_id = record.session_ended.session_id
                    self.over.add(session_id)
                    self._returned(SamplesReturned(run_ids=[sample.run_id for sample in self.held_by(session_id)]))
        elif event.HasField("row_finished"):
            self._note(event)
            self._finished(event.row_finished)
        elif event.HasField("run_finished"):
            self.sealed = True

    def _note(self, event: Event) -> None:
        _, _, digest = event.event_id.rpartition(DIGEST_MARK)
        self._reports.add(digest)

    def _selected(self, selected: SamplesSelected) -> None:
        new = [run_id for run_id in selected.run_ids if run_id not in self.samples]
        for run_id in new:
            self.samples[run_id] = Sample(run_id, self.revision)
        self.selected += len(new)
        if not selected.HasField("after_run_id"):  # those were examined before
            self.examined += selected.runs_examined
        if selected.HasField("live"):
            self.position = int(selected.live)
        elif self.backfill is not None:
            examined, chosen = self.backfill.examined + selected.runs_examined, self.backfill.selected + len(new)
            self.backfill = self._reached(self.backfill._replace(examined=examined, selected=chosen), selected)

    def _reached(self, backfill: Pass, selected: SamplesSelected) -> Pass:
        """Return how far a backfill is; after its last gap, remove the gaps that were examined completely."""
        if backfill.mode:
            after = selected.after_run_id
            return backfill._replace(after=after) if after else backfill._replace(at=backfill.gaps)
        gap, position = self.gaps[backfill.at], int(selected.backfill)
        if position != gap.until:
            return backfill._replace(position=position)
        self.gaps[backfill.at] = gap._replace(windows=(*gap.windows, backfill.window))
        at = backfill.at + 1
        if at < backfill.gaps:
            return backfill._replace(at=at, position=self.gaps[at].after)
        self.gaps = [gap for gap in self.gaps if Window(None, None) not in gap.windows]
        return backfill._replace(at=at, position=0)

    def _assigned(self, assigned: SamplesAssigned) -> None:
        session_id = assigned.session_id
        for run_id in assigned.run_ids:
            sample = self.samples[run_id]
            self._release(sample)
            self.assigned += 1
            self.holding[session_id] += 1
            self.samples[run_id] = sample._replace(
                attempts=sample.attempts + 1, session_id=session_id, number=self.assigned, retry_ns=0
            )
        if session_id in self.holding:
            self.sessions[session_id] = assigned.expire_time.ToNanoseconds()

    def _returned(self, returned: SamplesReturned) -> None:
        if returned.HasField("error"):
            self.last_error = returned.error
        counts = returned.HasField("error") and not returned.is_outage
        retry_ns = returned.retry_time.ToNanoseconds() if returned.HasField("retry_time") else 0
        for run_id in returned.run_ids:
            sample = self.samples[run_id]
            self._release(sample)
            attempts = sample.attempts if counts else sample.attempts - 1
            self.samples[run_id] = sample._replace(attempts=attempts, session_id="", retry_ns=retry_ns)
            if retry_ns:
                self.retries[run_id] = retry_ns

    def _finished(self, row: RowFinished) -> None:
        self._release(self.samples.pop(row.row_id))
        self.rows += 1
        self.sums.add_row(row)
        if row.HasField("error"):
            self.failed += 1
            self.last_error = row.error
        else:
            self.evaluated += 1
            self.last_error = None

    def _release(self, sample: Sample) -> None:
        self.retries.pop(sample.run_id, None)
        if sample.session_id:
            self.holding[sample.session_id] -= 1
            if not self.holding[sample.session_id]:
                del self.holding[sample.session_id]
                self.sessions.pop(sample.session_id, None)


def _is_over(time_ns: int, now_ns: int) -> bool:
    """Return whether a time is past, or so far in the future that the clock must have been set back since."""
    return not now_ns < time_ns <= now_ns + _LONGEST_NS
