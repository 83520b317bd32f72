"""How a rule stands: what it has drawn, who holds it, and what became of it. Pure: no I/O, no clock."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

from lavant.contract.summary import Sums
from lavant.server.evaluation.feed import Gap, Look, Window
from lavant.v1.event_pb2 import Event, RowFinished, SampleReturned, SamplesDrawn, SamplesLeased
from lavant.v1.rule_pb2 import RuleProgress
from lavant.v1.run_pb2 import Error

LONGEST_HOLD = 600.0  # seconds that a session may hold samples, unless it holds them anew
_LONGEST_NS = round(LONGEST_HOLD * 1e9)
DIGEST_MARK = "~"  # in the event_id before what tells a repetition
_SAMPLE_BYTES = 64


class Sample(NamedTuple):
    """A run to judge. `session_id` tells who holds it; empty: it waits, and not before `retry_ns` is over.

    `attempts` counts those that it was handed out for; `handed` numbers all that were ever handed out, in their order.
    """

    run_id: str
    revision: int
    attempts: int = 0
    session_id: str = ""
    handed: int = 0
    retry_ns: int = 0


class Ledger:
    """The fold of the events of a segment on what its predecessor left.

    Samples are kept in the order in which they were drawn, and handed out in it. Who holds a sample is told by its
    session alone: an expired session still holds what nobody else was handed since.
    """

    def __init__(self, revision: int, carried: Any = None) -> None:
        """Begin a segment, of a rule at a revision, with what was carried over."""
        carried = carried or {}
        self.revision = revision
        self.sequence = 0
        self.sealed = False
        self.position = int(carried.get("position", 0))
        self.handed: int = carried.get("handed", 0)
        self.seen, self.drawn, self.judged, self.failed = carried.get("progress", (0, 0, 0, 0))
        self.sessions: dict[str, int] = dict(carried.get("sessions", ()))  # those that hold anything
        holders = ["", *self.sessions]
        self.samples = {
            run_id: Sample(run_id, revision, attempts, holders[holder], *rest)
            for run_id, revision, attempts, holder, *rest in carried.get("samples", ())
        }
        self.gaps = [
            Gap(int(after), int(until), tuple(Window(*window) for window in windows))
            for after, until, windows in carried.get("gaps", ())
        ]
        self.look: Look | None = None
        if look := carried.get("look"):
            window, gaps, at, position, *rest = look
            self.look = Look(Window(*window), gaps, at, int(position), *rest)
        self.rows = 0
        self.sums = Sums()
        self.holding = Counter(sample.session_id for sample in self.samples.values() if sample.session_id)
        self.retries = {sample.run_id: sample.retry_ns for sample in self.samples.values() if sample.retry_ns}
        self.over: set[str] = set()  # sessions that are handed nothing more
        self.last_error: Error | None = None
        if error := carried.get("error"):
            self.last_error = Error(type=error[0], message=error[1])
        self._said: set[str] = set()

    def copy(self) -> "Ledger":
        """A ledger that goes its own way from here."""
        other = object.__new__(Ledger)
        other.__dict__.update(self.__dict__)
        for name in ("samples", "sessions", "gaps", "holding", "retries", "over", "_said"):
            setattr(other, name, getattr(self, name).copy())
        other.sums = self.sums.copy()
        return other

    def carry(self) -> dict[str, Any]:
        """What the next segment begins with, as JSON has it; positions as text, since they may have 400 bits."""
        holders = {session_id: number for number, session_id in enumerate(("", *self.sessions))}
        look = self.look and [[*self.look.window], *self.look[1:3], str(self.look.position), *self.look[4:]]
        return {
            "position": str(self.position),
            "handed": self.handed,
            "progress": [self.seen, self.drawn, self.judged, self.failed],
            "samples": [
                [run_id, revision, attempts, holders[holder], *rest]
                for run_id, revision, attempts, holder, *rest in self.samples.values()
            ],
            "sessions": [*self.sessions.items()],
            "gaps": [[str(gap.after), str(gap.until), [[*window] for window in gap.windows]] for gap in self.gaps],
            "look": look,
            "error": self.last_error and [self.last_error.type, self.last_error.message],
        }

    @property
    def waiting(self) -> int:
        """How many samples nobody holds."""
        return len(self.samples) - self.holding.total()

    @property
    def weight(self) -> int:
        """About how many bytes its samples take where they are carried over."""
        return sum(map(len, self.samples)) + _SAMPLE_BYTES * len(self.samples)

    def progress(self) -> RuleProgress:
        """How far the rule is."""
        return RuleProgress(
            runs_seen=self.seen,
            runs_drawn=self.drawn,
            runs_judged=self.judged,
            runs_failed=self.failed,
            samples_waiting=self.waiting,
            samples_delayed=len(self.retries),
            samples_held=self.holding.total(),
            last_error=self.last_error,
        )

    def said(self, digest: str) -> bool:
        """Tell whether a worker has said this before, in this segment."""
        return digest in self._said

    def held_by(self, session_id: str) -> list[Sample]:
        """What a session holds, in the order in which it was handed it."""
        if not self.holding[session_id]:
            return []
        held = [sample for sample in self.samples.values() if sample.session_id == session_id]
        return sorted(held, key=lambda sample: sample.handed)

    def free(self, now_ns: int) -> Iterator[Sample]:
        """What can be handed out, in the order in which it was drawn."""
        for sample in self.samples.values():
            if self._is_free(sample, now_ns):
                yield sample

    def delay_ns(self, now_ns: int) -> int | None:
        """How long until the next delayed sample is free, if all that wait are delayed; None: some are free."""
        if not self.retries or self.waiting > len(self.retries):
            return None
        return max(0, min(self.retries.values()) - now_ns)

    def has_free(self, now_ns: int) -> bool:
        """Tell whether anything can be handed out."""
        later = sum(not _is_over(retry_ns, now_ns) for retry_ns in self.retries.values())
        return self.waiting > later or any(_is_over(expire_ns, now_ns) for expire_ns in self.sessions.values())

    def next_due_ns(self, now_ns: int) -> int | None:
        """When the next sample becomes free by itself; None: none does."""
        times = (*self.retries.values(), *self.sessions.values())
        return min((time for time in times if not _is_over(time, now_ns)), default=None)

    def fold(self, event: Event) -> None:
        """Take in the next event of the segment."""
        self.sequence += 1
        kind = event.WhichOneof("payload")
        if kind == "samples_drawn":
            self._drawn(event.samples_drawn)
        elif kind == "samples_leased":
            self._leased(event.samples_leased)
        elif kind == "sample_returned":
            self._note(event)
            self._returned(event.sample_returned)
        elif kind == "row_finished":
            self._note(event)
            self._finished(event.row_finished)
        elif kind == "run_finished":
            self.sealed = True

    def _is_free(self, sample: Sample, now_ns: int) -> bool:
        return _is_over(self.sessions[sample.session_id] if sample.session_id else sample.retry_ns, now_ns)

    def _note(self, event: Event) -> None:
        _, _, digest = event.event_id.rpartition(DIGEST_MARK)
        self._said.add(digest)

    def _drawn(self, drawn: SamplesDrawn) -> None:
        new = [run_id for run_id in drawn.run_ids if run_id not in self.samples]
        for run_id in new:
            self.samples[run_id] = Sample(run_id, self.revision)
        self.drawn += len(new)
        place = from_json(drawn.position_json)
        if "again" in place:
            self._drawn_again(drawn.runs_seen, len(new), place["again"])
            return
        self.seen += drawn.runs_seen
        if "position" in place:
            self.position = int(place["position"])
        elif self.look is not None:
            look = self.look._replace(position=int(place["look"]))
            self.look = look._replace(seen=look.seen + drawn.runs_seen, drawn=look.drawn + len(new))
            self._look_on()

    def _drawn_again(self, seen: int, new: int, after: str | None) -> None:
        if self.look is not None and self.look.mode:
            look = self.look._replace(seen=self.look.seen + seen, drawn=self.look.drawn + new)
            self.look = look._replace(at=look.gaps) if after is None else look._replace(after=after)

    def _look_on(self) -> None:
        """Go on to the next gap behind the end of one; behind the last, forget those that are looked through."""
        look = self.look
        if look is None or look.done or look.position != self.gaps[look.at].until:
            return
        gap = self.gaps[look.at]
        self.gaps[look.at] = gap._replace(windows=(*gap.windows, look.window))
        at = look.at + 1
        self.look = look._replace(at=at, position=self.gaps[at].after if at < look.gaps else 0)
        if self.look.done:
            self.gaps = [gap for gap in self.gaps if Window(None, None) not in gap.windows]

    def _leased(self, leased: SamplesLeased) -> None:
        session_id = leased.session_id
        if not leased.HasField("expire_time"):
            self.over.add(session_id)
            for sample in self.held_by(session_id):
                self._returned(SampleReturned(run_id=sample.run_id))
        for run_id in leased.run_ids:
            sample = self.samples[run_id]
            self._let_go(sample)
            self.handed += 1
            self.holding[session_id] += 1
            self.samples[run_id] = sample._replace(
                attempts=sample.attempts + 1, session_id=session_id, handed=self.handed, retry_ns=0
            )
        if session_id in self.holding:
            self.sessions[session_id] = leased.expire_time.ToNanoseconds()

    def _returned(self, returned: SampleReturned) -> None:
        sample = self.samples[returned.run_id]
        self._let_go(sample)
        counts = returned.HasField("error") and not returned.uncounted
        attempts = sample.attempts if counts else sample.attempts - 1
        if returned.HasField("error"):
            self.last_error = returned.error
        retry_ns = returned.retry_time.ToNanoseconds() if returned.HasField("retry_time") else 0
        self.samples[returned.run_id] = sample._replace(attempts=attempts, session_id="", retry_ns=retry_ns)
        if retry_ns:
            self.retries[returned.run_id] = retry_ns

    def _finished(self, row: RowFinished) -> None:
        self._let_go(self.samples.pop(row.row_id))
        self.rows += 1
        self.sums.add_row(row)
        if row.HasField("error"):
            self.failed += 1
            self.last_error = row.error
        else:
            self.judged += 1
            self.last_error = None

    def _let_go(self, sample: Sample) -> None:
        self.retries.pop(sample.run_id, None)
        if sample.session_id:
            self.holding[sample.session_id] -= 1
            if not self.holding[sample.session_id]:
                del self.holding[sample.session_id]
                self.sessions.pop(sample.session_id, None)


def _is_over(time_ns: int, now_ns: int) -> bool:
    """Tell whether a time is past, or further away than any can be that was set since the clock was set back."""
    return not now_ns < time_ns <= now_ns + _LONGEST_NS
