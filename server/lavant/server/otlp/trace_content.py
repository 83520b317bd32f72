"""Content of a trace's log, read from its events: the same for every server."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lavant.v1.event_pb2 import Event, StepKind
from lavant.v1.run_pb2 import Error, RunFinished, RunState, TokenUsage

# IDs of the event that starts the run: of a trace, or of log records without one, which have no root.
ROOTED, ROOTLESS = "started", "started.by-logs"
_STARTED = "started"
_MODEL_REQUEST = StepKind.STEP_KIND_MODEL_REQUEST
_MOST = 2**63 - 1
_SUMMED = tuple(each.name for each in TokenUsage.DESCRIPTOR.fields if each.name not in {"model", "cost_usd"})


@dataclass(slots=True)
class RecordedSpan:
    """A span in a log: the attempt of its step, and the ends that were recorded.

    `call_id` is the ID of the tool call that was recorded with its start; empty: none.
    """

    attempt: int
    kind: "StepKind.ValueType" = StepKind.STEP_KIND_UNSPECIFIED
    is_root: bool = False
    call_id: str = ""
    ends: set[int] = field(default_factory=set)


class TraceContent:
    """Spans that the log of a trace holds, by their IDs, and what its run's end will say.

    The same events in any order of spans result in the same content.
    """

    def __init__(self) -> None:
        self.sequence = 0  # of the log's last event
        self.spans: dict[str, RecordedSpan] = {}
        self.open: dict[str, RecordedSpan] = {}  # those whose steps have not finished
        self.is_unordered = False
        self.is_rootless = False
        self._roots: dict[str, tuple[int, RunFinished]] = {}  # by span: when it ended, and how
        self._open_roots: set[str] = set()
        self._usage = TokenUsage()
        self._models: set[str] = set()

    @property
    def has_ended(self) -> bool:
        """Whether the root of the trace has ended, and no other root is open."""
        return bool(self._roots) and not self._open_roots

    def holds(self, span_id: str, end_ns: int) -> bool:
        """Return whether a span was recorded with this end; without an end (0), whether it was recorded at all."""
        span = self.spans.get(span_id)
        return span is not None and (not end_ns or end_ns in span.ends)

    def add(self, events: Iterable[Event]) -> None:
        """Add the log's next events."""
        for event in events:
            self.sequence = event.sequence or self.sequence + 1
            payload = event.WhichOneof("payload")
            if payload == "step_started":
                self._start(event)
            elif payload == "step_finished":
                self._finish(event)
            elif payload == "tool_call_started" and event.step_id in self.spans:
                self.spans[event.step_id].call_id = event.tool_call_started.call.tool_call_id
            elif payload == "run_started":
                self.is_unordered = event.run_started.unordered_steps
                self.is_rootless = event.event_id == ROOTLESS

    def finished(self) -> RunFinished:
        """Return how the run ends: as the root did that ended last, with the usage of all requests to models."""
        result = RunFinished()
        if self._roots:
            result.CopyFrom(max(self._roots.items(), key=lambda item: (item[1][0], item[0]))[1][1])
        else:
            result.state = RunState.RUN_STATE_SUCCEEDED
        if self._usage.ByteSize():
            result.usage.CopyFrom(self._usage)
            result.usage.model = next(iter(self._models)) if len(self._models) == 1 else ""
        return result

    def _start(self, event: Event) -> None:
        started = event.step_started
        span = self.spans.get(started.step_id)
        if span is None:
            span = self.spans[started.step_id] = RecordedSpan(started.attempt or 1)
        span.attempt, span.kind = started.attempt or 1, started.kind
        self.open[started.step_id] = span
        span.call_id = ""
        if not started.parent_step_id and event.HasField("trace"):
            self._open_roots.add(started.step_id)
            span.is_root = True

    def _finish(self, event: Event) -> None:
        finished = event.step_finished
        span = self.spans.get(finished.step_id)
        end = end_of(event.event_id)
        if span is None or end is None:
            return
        self.open.pop(finished.step_id, None)
        span.ends.add(end)
        if span.kind == _MODEL_REQUEST and finished.HasField("usage"):
            self._count(finished.usage)
        if span.is_root:
            self._open_roots.discard(finished.step_id)
            result = RunFinished(
                state=finished.state, output_json=finished.output_json, duration=finished.duration, usage=finished.usage
            )
            if finished.state != RunState.RUN_STATE_SUCCEEDED:
                result.error.CopyFrom(finished.error if finished.HasField("error") else Error(message="failed"))
            if not finished.HasField("usage"):
                result.ClearField("usage")
            self._roots[finished.step_id] = (end, result)

    def _count(self, usage: TokenUsage) -> None:
        total = self._usage
        for name in _SUMMED:
            setattr(total, name, min(getattr(total, name) + getattr(usage, name), _MOST))
        if usage.HasField("cost_usd"):
            total.cost_usd += usage.cost_usd
        self._models.add(usage.model)


def started_id(span_id: str, attempt: int) -> str:
    """Return the ID of the event that starts a span's step."""
    return f"{span_id}.{_STARTED}.{attempt}"


def finished_id(span_id: str, end_ns: int) -> str:
    """Return the ID of the event that finishes a span's step: with its end, by which the same span is known again."""
    return f"{span_id}.{end_ns}"


def end_of(event_id: str) -> int | None:
    """Return the end of a span in the ID of the event that finishes it, None for another event's ID."""
    end = event_id.rpartition(".")[2]
    return int(end) if end.isascii() and end.isdigit() else None
