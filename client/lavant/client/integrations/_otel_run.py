"""A root span at work: its run, and the steps in it. Belongs to the worker's thread."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, use_span

from lavant.client import Client, ProducerOptions, RunProducer, Usage, _payloads
from lavant.client._arguments import duration
from lavant.client._options import OnError
from lavant.client.integrations._message_recorder import MessageRecorder
from lavant.client.integrations._otel_span import Moment
from lavant.client.integrations._recorder import Recorder
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text
from lavant.v1.event_pb2 import Event


class SpanRun:
    """Records a root span as a run, and the spans within it as its steps, with their times and trace contexts.

    A span that has begun is recorded only when it is shown: applications set names, kinds and arguments after the
    beginning. It is shown when another one begins in it, when it ends, or by `show`. A tool's call is recorded with
    its arguments: at the end of the tool if the span does not have them before.
    """

    def __init__(
        self,
        client: Client,
        root: ReadableSpan,
        labels: Mapping[str, str] | None,
        producer_timeout: float | None,
        options: ProducerOptions | None,
        on_error: OnError,
    ) -> None:
        self._start = _Start(client, labels, producer_timeout, options or ProducerOptions(), on_error)
        self._root = root
        self._root_id = root.context.span_id
        self._run: RunProducer | None = None
        self._now = 0
        self._hidden: dict[int, ReadableSpan] = {}
        self._parents: dict[int, int] = {}
        self._told: set[int] = set()
        self._ids: dict[int, ToolCallIds] = {}
        self._calls: dict[int, int] = {}

    def begin(self, span: ReadableSpan) -> None:
        """Note that a span has begun in the root, and show those around it."""
        parent = span.parent.span_id if span.parent else self._root_id
        self.show(parent)
        self._hidden[span.context.span_id] = span

    def show(self, key: int) -> None:
        """Record the beginning of a span as the span is now, if that is still to be done."""
        if self._run is None:
            self._open(Moment.of(self._root))
        if (span := self._hidden.pop(key, None)) is not None:
            self._begin(Moment.of(span))

    def end(self, span: Moment) -> None:
        """End a span's step. What was begun in it and is still at work goes on."""
        key = span.context.span_id
        self.show(self._root_id)
        if self._hidden.pop(key, None) is not None:
            self._begin(span)
        if key not in self._parents:
            return
        self._now = span.ended
        with use_span(NonRecordingSpan(span.context)):
            self._say(span)
            parent = self._parents.pop(key)
            usage = self._count(span, parent)
            self._call_late(span, parent)
            self._recorder.leave(key)
            self._recorder.end(key, output=span.output, error=span.error, usage=usage)
        self._calls.pop(key, None)
        self._ids.pop(key, None)

    def finish(self, span: Moment) -> None:
        """End the run as its root span ended, and what is still open in it."""
        if self._run is None:
            self._open(span)
        for key in list(self._hidden):
            self.show(key)
        self._now = span.ended
        with use_span(NonRecordingSpan(span.context)):
            try:
                self._say(span)
                self._count(span, 0)
            finally:
                assert self._run is not None  # noqa: S101
                self._run.output = span.output
                self._run.duration = (span.ended - span.began) / 1e9
                self._close(span.error)

    def leave(self, error: Exception) -> None:
        """End the run as failed."""
        self.show(self._root_id)
        self._close(error)

    def _open(self, root: Moment) -> None:
        self._now = root.began
        run = self._run = self._start.run(root, lambda: self._now)
        self._log = _SpanLog(run, lambda: self._now)
        self._recorder = Recorder(self._log)
        with use_span(NonRecordingSpan(root.context)):
            self._start.begin(run)

    def _close(self, error: Exception | None) -> None:
        assert self._run is not None  # noqa: S101
        try:
            self._recorder.end_all()
        finally:
            self._start.end(self._run, error)

    def _begin(self, span: Moment) -> None:
        key, parent = span.context.span_id, span.parent.span_id if span.parent else self._root_id
        self._now = span.began
        self._parents[key] = parent
        with use_span(NonRecordingSpan(span.context)):
            if span.kind == "tool" and span.arguments is not None:
                self._calls[key] = parent
                call_id, given = self._take(span, parent), span.call_id or None
                self._recorder.begin_tool(
                    key, span.tool_name, span.arguments, call_id=call_id, original_id=given, parent=parent
                )
            else:
                name = span.tool_name if span.kind == "tool" else span.name
                self._recorder.begin_step(key, name, span.kind, parent=parent, input=span.input)

    def _call_late(self, span: Moment, parent: int) -> None:
        """Record the call of a tool that was not known to be one, or not with what, when it began."""
        key = span.context.span_id
        if span.kind != "tool" or key in self._calls:
            return
        call_id, given = self._take(span, parent), span.call_id or None
        call = _payloads.tool_call(call_id, span.tool_name, span.arguments, original_id=given)
        self._recorder.add_call(key, call, span.began)

    def _take(self, span: Moment, parent: int) -> str:
        return self._ids_in(parent).take(span.call_id or span.tool_name)

    def _ids_in(self, parent: int) -> ToolCallIds:
        if (ids := self._ids.get(parent)) is None:
            ids = self._ids[parent] = ToolCallIds(self._recorder.step_of(parent))
        return ids

    def _count(self, span: Moment, parent: int) -> Usage | None:
        """Add up what spans tell, but not what one tells of those within it once more."""
        within_told, usage = span.context.span_id in self._told, span.usage
        self._told.discard(span.context.span_id)
        if within_told or usage:
            self._told.add(parent)
        if within_told or usage is None:
            return None
        if self._run is not None:
            self._run.usage = self._run.usage + usage if self._run.usage else usage
        return usage

    def _say(self, span: Moment) -> None:
        if span.kind != "model_request":
            return
        for said in span.messages:
            message = self._recorder.message(span.context.span_id, span.model)
            parts = said.get("parts")
            if not isinstance(parts, list):
                parts = [{"type": "text", "content": said.get("content")}]
            for part in parts:
                if isinstance(part, dict):
                    self._say_part(span, message, part)
            message.finish(to_text(said.get("finish_reason")), span.usage)

    def _say_part(self, span: Moment, message: MessageRecorder, part: dict[str, object]) -> None:
        kind = to_text(part.get("type"))
        if kind == "text":
            message.text(part.get("content"))
        elif kind in {"thinking", "reasoning"}:
            message.reasoning(part.get("content"))
        elif kind == "tool_call":
            # Named as the tool at work will be, which is a sibling of this request.
            ids = self._ids_in(self._parents.get(span.context.span_id, 0))
            given, name = to_text(part.get("id")), to_text(part.get("name"))
            call_id = ids.begin(given or name)
            message.tool_call(call_id, name or "tool", part.get("arguments"), given or None)


class _Start:
    """How runs are begun and ended: without waiting, unless errors are to be raised."""

    def __init__(
        self,
        client: Client,
        labels: Mapping[str, str] | None,
        producer_timeout: float | None,
        options: ProducerOptions,
        on_error: OnError,
    ) -> None:
        self._client = client
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._options = options
        self._on_error = on_error

    def run(self, root: Moment, clock: Callable[[], int]) -> RunProducer:
        """Return the run of a root span, which has not begun."""
        return self._client.runs.start(
            root.name,
            input=root.input,
            labels=self._labels,
            producer_timeout=self._producer_timeout,
            conversation_id=to_text(root.attributes.get("gen_ai.conversation.id")),
            model=root.model,
            options=replace(self._options, clock=clock),
            on_error=self._on_error,
        )

    def begin(self, run: RunProducer) -> None:
        """Begin it."""
        if self._on_error == "raise":
            run.__enter__()
        else:
            run.begin()

    def end(self, run: RunProducer, error: Exception | None) -> None:
        """End it; failed, if there is an error."""
        if self._on_error == "raise":
            run.__exit__(type(error) if error else None, error, None)
        else:
            run.end(error)


class _SpanLog:
    """A run's producer; durations are those between the spans' times."""

    def __init__(self, run: RunProducer, now: Callable[[], int]) -> None:
        self._run = run
        self._now = now
        self._began: dict[str, int] = {}

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting."""
        if event.HasField("step_started"):
            self._began[event.step_started.step_id] = self._now()
        elif event.HasField("tool_call_finished"):
            event.tool_call_finished.duration.CopyFrom(self._since(self._began.get(event.step_id)))
        elif event.HasField("step_finished"):
            event.step_finished.duration.CopyFrom(self._since(self._began.pop(event.step_finished.step_id, None)))
        self._run.enqueue(event)

    def _since(self, began: int | None) -> Duration:
        return duration(max(0, self._now() - (self._now() if began is None else began)) / 1e9)
