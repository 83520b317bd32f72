"""Spans as steps of a run: the events that record them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lavant.contract.limits import MAX_VALUE_BYTES, NANOS
from lavant.server.otlp.received import ReceivedSpan, source_of
from lavant.server.otlp.trace_content import ROOTED, ROOTLESS, TraceContent, finished_id, started_id
from lavant.v1.event_pb2 import (
    Event,
    MessageFinished,
    MessageStarted,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolCallFinished,
    ToolCallStarted,
    TraceContext,
)
from lavant.v1.run_pb2 import RunState

MAX_OPEN_SPANS = 500  # of a trace, whose IDs and those of their tool calls are far from MAX_OPEN_BYTES


def run_started(received: Sequence[ReceivedSpan]) -> Event:
    """Return the event that starts the run of a trace, of which some spans are known."""
    first = min(received, key=lambda each: each.start_ns)
    roots = (each for each in received if not each.parent_id)
    root = next((each for each in roots if not each.is_log or each.reading.input_json), None)
    started = RunStarted(unordered_steps=True)
    if root is not None:
        started.input_json, started.model, started.version = (
            root.reading.input_json,
            root.reading.model,
            root.reading.version,
        )
    event = Event(event_id=ROOTED if received[0].has_trace else ROOTLESS, run_started=started)
    _set_time(event, first.start_ns)
    return event


def step_events(received: Iterable[ReceivedSpan], content: TraceContent) -> Iterator[Event]:
    """Return the events of spans that a log does not hold, each within that of its parent where both are new.

    Siblings are in the order of their starts.
    """
    new: dict[tuple[str, int], ReceivedSpan] = {}
    for each in received:
        if not content.holds(each.id, each.end_ns):
            new.setdefault((each.id, each.end_ns), each)
    for span_id, end in [key for key in new if not key[1]]:
        if any(other == span_id and other_end for other, other_end in new):
            del new[span_id, end]  # its end is here already
    children: dict[str, list[ReceivedSpan]] = defaultdict(list)
    ids = {span_id for span_id, _ in new}
    for each in sorted(new.values(), key=lambda each: (each.start_ns, each.id), reverse=True):
        children[each.parent_id if each.parent_id in ids else ""].append(each)
    return _Recording(content, children).events()


class _Recording:
    """One recording of new spans."""

    def __init__(self, content: TraceContent, children: Mapping[str, list[ReceivedSpan]]) -> None:
        self._children = children
        self._content = content
        self._open = len(content.open)
        self._calls = {span.call_id for span in content.open.values() if span.call_id}
        self._attempts: dict[str, int] = {}

    def events(self) -> Iterator[Event]:
        # Not recursive: spans may be nested deeper than Python's stack. A cycle of parents has no top, so spans of it
        # that nobody has reached are tops too.
        reached: set[int] = set()
        tops = list(self._children.get("", ()))
        rest = [each for key, group in self._children.items() if key for each in group]
        while tops or rest:
            top = tops.pop() if tops else rest.pop()
            if id(top) in reached:
                continue
            yield from self._tree(top, reached)

    def _tree(self, top: ReceivedSpan, reached: set[int]) -> Iterator[Event]:
        waiting: list[tuple[ReceivedSpan, str | None]] = [(top, None)]
        while waiting:
            each, call_id = waiting.pop()
            if call_id is not None:
                yield from self._finish(each, call_id)
                continue
            if id(each) in reached:
                continue
            reached.add(id(each))
            recorded = self._content.open.get(each.id)
            if recorded is not None and each.end_ns:
                call_id = recorded.call_id or self._call_of(each)
                if call_id and not recorded.call_id:
                    yield self._start_call(each, call_id)
            else:
                if not each.end_ns and self._open >= MAX_OPEN_SPANS:
                    continue  # it is recorded when it ends
                self._open += 1
                call_id = self._call_of(each)
                yield self._start(each)
                if call_id:
                    yield self._start_call(each, call_id)
            if each.end_ns:
                if self._open > MAX_OPEN_SPANS:
                    yield from self._finish(each, call_id)
                else:
                    waiting.append((each, call_id))
            waiting += [(child, None) for child in self._children.get(each.id, ())]

    def _call_of(self, each: ReceivedSpan) -> str:
        """Return the ID of the tool call that a span executes, one that is not open; empty: none."""
        tool = each.reading.tool
        if tool is None:
            return ""
        wanted = tool.call.tool_call_id
        return wanted if wanted and wanted not in self._calls else f"{each.id}.call"

    def _start(self, each: ReceivedSpan) -> Event:
        recorded = self._content.spans.get(each.id)
        attempt = self._attempts.get(each.id, recorded.attempt if recorded else 0) + 1
        self._attempts[each.id] = attempt
        reading = each.reading
        started = StepStarted(
            step_id=each.id,
            parent_step_id=each.parent_id,
            name=reading.name,
            kind=reading.kind,
            input_json=reading.input_json,
            attempt=attempt if attempt > 1 else 0,
        )
        event = Event(event_id=started_id(each.id, attempt), step_started=started)
        if not each.is_log:
            event.trace.CopyFrom(TraceContext(trace_id=each.trace_id, span_id=each.id))
        if not each.end_ns:
            event.source.CopyFrom(source_of(each))
        _set_time(event, each.start_ns)
        return event

    def _start_call(self, each: ReceivedSpan, call_id: str) -> Event:
        self._calls.add(call_id)
        tool = each.reading.tool
        assert tool is not None  # noqa: S101 - there is no ID without
        event = Event(event_id=f"{each.id}.call", step_id=each.id, tool_call_started=ToolCallStarted(call=tool.call))
        call = event.tool_call_started.call
        if call.tool_call_id != call_id:
            call.original_id = call.original_id or call.tool_call_id
            call.tool_call_id = call_id
        _set_time(event, each.start_ns)
        return event

    def _finish(self, each: ReceivedSpan, call_id: str) -> Iterator[Event]:
        reading, end = each.reading, each.end_ns
        self._open -= 1
        for number, message in enumerate(reading.messages):
            message_id = f"{each.id}.{number}"
            started = MessageStarted(message_id=message_id, role=message.role, model=reading.model)
            finished = MessageFinished(
                message_id=message_id, role=message.role, parts=message.parts, finish_reason=message.finish_reason
            )
            if finished.ByteSize() > MAX_VALUE_BYTES:
                continue  # the span itself has it
            yield _event(f"{message_id}.started", each, end, message_started=started)
            yield _event(f"{message_id}.finished", each, end, message_finished=finished)
        if call_id:
            self._calls.discard(call_id)
            tool = reading.tool
            assert tool is not None  # noqa: S101 - there is no ID without
            ended = ToolCallFinished(
                tool_call_id=call_id,
                tool_name=tool.call.tool_name,
                outcome=tool.outcome,
                result_json=tool.result_json,
                error=reading.error,
            )
            yield _event(f"{each.id}.result", each, end, tool_call_finished=ended)
        state = reading.state
        step = StepFinished(
            step_id=each.id,
            state=max(state, RunState.RUN_STATE_SUCCEEDED),
            error=reading.error,
            usage=reading.usage,
        )
        if len(reading.output_json) + len(each.raw) <= MAX_VALUE_BYTES:
            step.output_json = reading.output_json
        step.duration.FromNanoseconds(max(0, end - each.start_ns))
        event = Event(event_id=finished_id(each.id, end), step_finished=step, source=source_of(each))
        _set_time(event, end)
        yield event


def _event(event_id: str, each: ReceivedSpan, time_ns: int, **payload: object) -> Event:
    event = Event(event_id=event_id, step_id=each.id, **payload)  # type: ignore[arg-type]
    _set_time(event, time_ns)
    return event


def _set_time(event: Event, time_ns: int) -> None:
    """Set the time of an event: one after 1970, as events must have it; fixed64 fields of spans may be beyond 2500."""
    seconds, nanos = divmod(max(time_ns, NANOS), NANOS)
    event.event_time.seconds, event.event_time.nanos = seconds, nanos
