"""A root span as a run, and the spans within it as its steps. Belongs to the worker's thread."""

from dataclasses import replace

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, use_span

from lavant.client import Client, ProducerOptions, RunProducer, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client.integrations.opentelemetry.span import SpanSnapshot
from lavant.client.integrations.recording.messages import MessageRecorder, ToolCallIds
from lavant.client.integrations.recording.runs import RunOptions
from lavant.client.integrations.recording.steps import StepRecorder
from lavant.contract.text import to_text


class SpanRun:
    """Records a root span as a run, and the spans within it as its steps, with their times and trace contexts.

    A span that has started is recorded only when it is shown: applications set names, kinds and arguments after the
    start. It is shown when another one starts in it, when it ends, or by `show`. A tool's call is recorded with
    its arguments: at the end of the tool if the span does not have them before.
    """

    def __init__(self, client: Client, root: ReadableSpan, options: RunOptions) -> None:
        self.root = root
        self.root_id = root.context.span_id
        self.is_over = False
        # Of the threads that report, under the processor's lock: the open spans, and whether the queue was full.
        self.spans: set[int] = set()
        self.is_dropped = False
        self._client = client
        self._options = options
        self._run: RunProducer | None = None
        self._now = 0
        self._steps: StepRecorder
        self._hidden: dict[int, ReadableSpan] = {}
        self._parents: dict[int, int] = {}
        # Spans that have a usage within: theirs is the sum of it.
        self._counted: set[int] = set()
        self._ids: dict[int, ToolCallIds] = {}
        self._called: set[int] = set()

    def start(self, span: ReadableSpan) -> None:
        """Note that a span has started in the root, and show those around it."""
        if self.is_over or span is self.root:
            return
        self.show(self._parent_of(span))
        self._hidden[span.context.span_id] = span

    def show(self, key: int) -> None:
        """Record the start of a span as the span is now, unless that was done before."""
        if self.is_over:
            return
        self._open(SpanSnapshot.of(self.root))
        if (span := self._hidden.pop(key, None)) is not None:
            self._start(SpanSnapshot.of(span))

    def end(self, span: SpanSnapshot) -> None:
        """Finish a span's step. What was started in it and is still open continues."""
        if self.is_over:
            return
        key = span.context.span_id
        self.show(self.root_id)
        if self._hidden.pop(key, None) is not None:
            self._start(span)
        if key not in self._parents:
            return
        self._now = span.end
        with use_span(NonRecordingSpan(span.context)):
            self._record_messages(span)
            parent = self._parents.pop(key)
            usage = self._count(span, parent)
            if span.kind == "tool" and key not in self._called:
                # It was not known to be a tool, or not with its arguments, when it started.
                call_id, original_id = self._take_call(span, parent)
                call = _payloads.tool_call(call_id, span.tool_name, span.arguments, original_id=original_id)
                self._steps.set_call(key, call, span.start)
            self._steps.detach_children(key)
            self._steps.finish(key, output=span.output, error=span.error, usage=usage)
        self._called.discard(key)
        self._ids.pop(key, None)

    def finish(self, span: SpanSnapshot) -> None:
        """End the run as its root span ended, and what is still open in it."""
        if self.is_over:
            return
        run = self._open(span)
        for key in list(self._hidden):
            self.show(key)
        self._now = span.end
        with use_span(NonRecordingSpan(span.context)):
            try:
                self._record_messages(span)
                self._count(span, 0)
            finally:
                run.output = span.output
                run.duration = (span.end - span.start) / 1e9
                self._close(run, span.error)

    def abandon(self, error: Exception) -> None:
        """End the run as failed, before its root span has ended."""
        if not self.is_over:
            self._close(self._open(SpanSnapshot.of(self.root)), error)

    def _open(self, root: SpanSnapshot) -> RunProducer:
        if self._run is not None:
            return self._run
        self._now = root.start
        with_clock = replace(self._options["options"] or ProducerOptions(), clock=lambda: self._now)
        options: RunOptions = {**self._options, "options": with_clock}
        run = self._run = self._client.runs.start(
            root.name,
            input=root.input,
            conversation_id=to_text(root.attributes.get("gen_ai.conversation.id")),
            model=root.model,
            **options,
        )
        # Durations are those between the times of spans.
        self._steps = StepRecorder(run, clock=lambda: self._now / 1e9)
        with use_span(NonRecordingSpan(root.context)):
            try:
                run.begin()
                run._wait_created()
            except BaseException:
                self.is_over = True
                raise
        return run

    def _close(self, run: RunProducer, error: Exception | None) -> None:
        self.is_over = True
        try:
            self._steps.finish_all()
        finally:
            run.end(error)
            if self._options["on_error"] == "raise":
                run._wait_ended(error)

    def _start(self, span: SpanSnapshot) -> None:
        key, parent = span.context.span_id, self._parent_of(span)
        self._now = span.start
        self._parents[key] = parent
        with use_span(NonRecordingSpan(span.context)):
            if span.kind == "tool" and span.arguments is not None:
                self._called.add(key)
                call_id, original_id = self._take_call(span, parent)
                self._steps.start_tool(
                    key, span.tool_name, span.arguments, call_id=call_id, original_id=original_id, parent=parent
                )
            else:
                name = span.tool_name if span.kind == "tool" else span.name
                self._steps.start(key, name, span.kind, parent=parent, input=span.input)

    def _parent_of(self, span: "ReadableSpan | SpanSnapshot") -> int:
        return span.parent.span_id if span.parent else self.root_id

    def _take_call(self, span: SpanSnapshot, parent: int) -> tuple[str, str | None]:
        """Return the id of the call that a tool executes, and the model's id for it."""
        return self._ids_in(parent).take(span.call_id or span.tool_name), span.call_id or None

    def _ids_in(self, parent: int) -> ToolCallIds:
        if (ids := self._ids.get(parent)) is None:
            ids = self._ids[parent] = ToolCallIds(self._steps.step_id(parent))
        return ids

    def _count(self, span: SpanSnapshot, parent: int) -> Usage | None:
        """Add a span's usage to the run's, unless spans within it had one: theirs is a part of it."""
        is_counted, usage = span.context.span_id in self._counted, span.usage
        self._counted.discard(span.context.span_id)
        if is_counted or usage:
            self._counted.add(parent)
        if is_counted or usage is None:
            return None
        if self._run is not None:
            self._run.usage = self._run.usage + usage if self._run.usage else usage
        return usage

    def _record_messages(self, span: SpanSnapshot) -> None:
        if span.kind != "model_request":
            return
        for entry in span.messages:
            message = self._steps.message(span.context.span_id, span.model)
            parts = entry.get("parts")
            if not isinstance(parts, list):
                parts = [{"type": "text", "content": entry.get("content")}]
            for part in parts:
                if isinstance(part, dict):
                    self._record_part(span, message, part)
            message.finish(to_text(entry.get("finish_reason")), span.usage)

    def _record_part(self, span: SpanSnapshot, message: MessageRecorder, part: dict[str, object]) -> None:
        kind = to_text(part.get("type"))
        if kind == "text":
            message.add("text", part.get("content"))
        elif kind in {"thinking", "reasoning"}:
            message.add("reasoning", part.get("content"))
        elif kind == "tool_call":
            # The tool that executes the call is a sibling of this request, and takes the same id.
            ids = self._ids_in(self._parents.get(span.context.span_id, 0))
            original_id, name = to_text(part.get("id")), to_text(part.get("name"))
            call_id = ids.new(original_id or name)
            ids.expect(original_id or name, call_id)
            message.set_call(call_id, name or "tool", part.get("arguments"), original_id or None)
