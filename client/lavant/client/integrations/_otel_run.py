"""A root span at work: its run, and the steps in it. Belongs to the worker's thread."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration
from opentelemetry.trace import NonRecordingSpan, use_span

from lavant.client import Client, ProducerOptions, RunProducer, Usage, _json
from lavant.client._arguments import duration
from lavant.client._options import OnError
from lavant.client.integrations._message_recorder import MessageRecorder
from lavant.client.integrations._otel_span import Moment
from lavant.client.integrations._recorder import Recorder
from lavant.v1.event_pb2 import Event


class SpanRun:
    """Records a root span as a run, and the spans within it as its steps, with their times and trace contexts."""

    def __init__(
        self,
        client: Client,
        root: Moment,
        labels: Mapping[str, str] | None,
        producer_timeout: float | None,
        options: ProducerOptions | None,
        on_error: OnError,
    ) -> None:
        self._root_id = root.context.span_id
        self._now = root.time
        self._parents: dict[int, int] = {}
        self._told: set[int] = set()
        self._usage: Usage | None = None
        self._run: RunProducer = client.runs.start(
            root.name,
            input=_json.bounded(root.input),
            labels=labels,
            producer_timeout=producer_timeout,
            conversation_id=str(root.attributes.get("gen_ai.conversation.id", "")),
            model=root.model,
            options=replace(options or ProducerOptions(), clock=lambda: self._now),
            on_error=on_error,
        )
        self._recorder = Recorder(_SpanLog(self._run, lambda: self._now))
        with use_span(NonRecordingSpan(root.context)):
            self._run.__enter__()

    def begin(self, span: Moment) -> None:
        """Begin a span's step."""
        key, parent = span.context.span_id, span.parent.span_id if span.parent else self._root_id
        self._now = span.time
        self._parents[key] = parent
        with use_span(NonRecordingSpan(span.context)):
            if span.kind == "tool":
                call_id = self._recorder.call_id(parent, span.call_id)
                self._recorder.begin_tool(key, span.tool_name, span.arguments, call_id=call_id, parent=parent)
            else:
                self._recorder.begin_step(key, span.name, span.kind, parent=parent, input=span.input)

    def end(self, span: Moment) -> None:
        """End a span's step."""
        key = span.context.span_id
        self._now = span.time
        with use_span(NonRecordingSpan(span.context)):
            self._say(span)
            usage = self._count(span, self._parents.pop(key, self._root_id))
            self._recorder.end(key, output=span.output, error=span.error, usage=usage)

    def finish(self, span: Moment) -> None:
        """End the run as its root span ended, and what is still open in it. Waits until all is durable."""
        self._now = span.time
        with use_span(NonRecordingSpan(span.context)):
            try:
                self._say(span)
                self._count(span, 0)
                self._run.output = _json.bounded(span.output)
                self._run.usage = self._usage
            except Exception as unreadable:
                self.leave(span.error or unreadable)
                raise
            self.leave(span.error)

    def leave(self, error: Exception | None) -> None:
        """End the run, failed if there is an error."""
        try:
            self._recorder.end_all()
        finally:
            self._run.__exit__(type(error) if error else None, error, None)

    def _count(self, span: Moment, parent: int) -> Usage | None:
        """Add up what spans tell, but not what one tells of those within it once more."""
        within_told, usage = span.context.span_id in self._told, span.usage
        self._told.discard(span.context.span_id)
        if within_told or usage:
            self._told.add(parent)
        if within_told or usage is None:
            return None
        self._usage = self._usage + usage if self._usage else usage
        return usage

    def _say(self, span: Moment) -> None:
        if span.kind != "model_request":
            return
        for said in span.messages:
            message = self._recorder.message(span.context.span_id, span.model)
            parts = said.get("parts") or [{"type": "text", "content": said.get("content")}]
            for part in parts:
                if isinstance(part, dict):
                    self._say_part(span, message, part)
            message.finish(str(said.get("finish_reason") or ""), span.usage)

    def _say_part(self, span: Moment, message: MessageRecorder, part: dict[str, object]) -> None:
        content = part.get("content")
        if part.get("type") == "text" and isinstance(content, str):
            message.text(content)
        elif part.get("type") in {"thinking", "reasoning"} and isinstance(content, str):
            message.reasoning(content)
        elif part.get("type") == "tool_call":
            # Named as the tool at work will be, which is a sibling of this request.
            call_id = self._recorder.call_id(
                self._parents.get(span.context.span_id), str(part.get("id") or span.call_id)
            )
            message.tool_call(call_id, str(part.get("name") or "tool"), part.get("arguments"))


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
        return duration(max(0, self._now() - (began or self._now())) / 1e9)
