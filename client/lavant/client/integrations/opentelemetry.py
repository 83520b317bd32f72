"""Records what OpenTelemetry traces: `provider.add_span_processor(LavantSpanProcessor(client))`.

Needs `pip install 'lavant[otel]'`.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from typing_extensions import override

from lavant.client import Client, LavantError, ProducerOptions
from lavant.client._options import OnError, check_on_error
from lavant.client.integrations._otel_run import SpanRun
from lavant.client.integrations._otel_span import Moment
from lavant.client.integrations._otel_worker import Worker

_log = logging.getLogger(__name__)

_REMEMBERED_TRACES = 1_024
_SHUTDOWN_SECONDS = 30.0


class _Root:
    """A root span, and its run once the worker has opened it."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.run: SpanRun | None = None
        self.spans: set[int] = set()
        self.dropped = False


class LavantSpanProcessor(SpanProcessor):
    """Publishes each root span, one with no parent in this process, as a run, and the spans within it as its steps.

    Model requests, tools and agents are known by OpenTelemetry's GenAI conventions; all else is a workflow step.
    The root's end ends the run; spans within it that are open then are recorded as failed, their end is
    dropped. Everything is published by one thread: the application never waits for it and never gets an error from
    it. When more than `queue_limit` beginnings and ends are waiting, the run of the next one ends as FAILED, with one
    warning. Spans of calls to lavant itself, as instrumented gRPC makes them, are left out.

    With `on_error="raise"`, `force_flush` and `shutdown` raise what could not be recorded, else it is logged.
    Tool arguments are recorded if the span has them when it begins. CancelRun does not stop the application.
    Close the client after the provider's `shutdown`.

    Example:
        provider = TracerProvider()
        provider.add_span_processor(LavantSpanProcessor(client))
        with provider.get_tracer("app").start_as_current_span("weather-agent"):
            pass
        provider.shutdown()
        assert next(client.runs.list()).name == "weather-agent"
    """

    def __init__(
        self,
        client: Client,
        *,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        options: ProducerOptions | None = None,
        on_error: OnError = "log",
        queue_limit: int = 10_000,
    ) -> None:
        self._client = client
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._options = options
        self._on_error = check_on_error(on_error)
        self._worker = Worker(queue_limit, raises=on_error == "raise")
        self._lock = threading.Lock()
        self._roots: dict[int, _Root] = {}
        self._ended_traces: dict[int, None] = {}
        self._has_shut_down = False

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins."""
        moment = Moment.begun(span)
        key, parent = moment.context.span_id, moment.parent
        with self._lock:
            if self._has_shut_down or moment.is_call_to_lavant:
                return
            root = self._roots.get(parent.span_id) if parent else None
            begins_run = root is None
            if root is None:
                if parent and not parent.is_remote and moment.context.trace_id in self._ended_traces:
                    _log.debug("span %s began after its root had ended: not recorded", moment.name)
                    return
                root = _Root(moment)
            self._roots[key] = root
            root.spans.add(key)
            self._tell(root, moment, self._open if begins_run else _begin)

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        moment = Moment.ended(span)
        key = moment.context.span_id
        with self._lock:
            root = self._roots.get(key)
            if root is None:
                _log.debug("span %s ended after its root: not recorded", moment.name)
            elif root.moment.context.span_id != key:
                self._tell(root, moment, _end)
            else:
                self._tell(root, moment, _finish)
                self._forget(root)

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until what is queued is recorded, and what ended is durable; False after `timeout_millis`."""
        return self._worker.wait(timeout_millis / 1000)

    @override
    def shutdown(self) -> None:
        """Record what is queued, end the runs whose roots are still open as FAILED, and take no more; at most 30 s."""
        with self._lock:
            self._has_shut_down = True
            for root in {id(root): root for root in self._roots.values()}.values():
                self._abandon(root, "the tracer provider was shut down before its root span ended")
                self._forget(root)
            self._worker.close()
        if not self._worker.wait(_SHUTDOWN_SECONDS):
            _log.warning("spans are still being recorded after %g s: left behind", _SHUTDOWN_SECONDS)

    def _tell(self, root: _Root, moment: Moment, action: Callable[[_Root, Moment], None]) -> None:
        if root.dropped or self._worker.tell(lambda: action(root, moment)):
            return
        root.dropped = True
        _log.warning("run of span %s is not recorded any further: too many spans are waiting", root.moment.name)
        self._abandon(root, "not recorded further: too many spans were waiting")

    def _abandon(self, root: _Root, why: str) -> None:
        self._worker.tell(lambda: _leave(root, LavantError(why)), urgent=True)

    def _forget(self, root: _Root) -> None:
        for key in root.spans:
            del self._roots[key]
        self._ended_traces[root.moment.context.trace_id] = None
        if len(self._ended_traces) > _REMEMBERED_TRACES:
            del self._ended_traces[next(iter(self._ended_traces))]

    def _open(self, root: _Root, moment: Moment) -> None:
        root.run = SpanRun(self._client, moment, self._labels, self._producer_timeout, self._options, self._on_error)


def _begin(root: _Root, moment: Moment) -> None:
    if root.run is not None:
        root.run.begin(moment)


def _end(root: _Root, moment: Moment) -> None:
    if root.run is not None:
        root.run.end(moment)


def _finish(root: _Root, moment: Moment) -> None:
    run, root.run = root.run, None
    if run is not None:
        run.finish(moment)


def _leave(root: _Root, error: Exception) -> None:
    run, root.run = root.run, None
    if run is not None:
        run.leave(error)
