"""Records what OpenTelemetry traces: `provider.add_span_processor(LavantSpanProcessor(client))`.

Needs `pip install 'lavant[otel]'`.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from functools import partial

from typing_extensions import override

from lavant.client import Client, LavantError, ProducerOptions
from lavant.client._async.concurrency import monotonic
from lavant.client._options import OnError, check_on_error
from lavant.client.integrations._extras import extra

with extra("otel"):
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from lavant.client.integrations._otel_run import SpanRun
from lavant.client.integrations._otel_span import Moment, is_call_to_lavant
from lavant.client.integrations._otel_worker import Action, Worker
from lavant.contract.text import to_name

_log = logging.getLogger(__name__)

# Traces that have ended, and spans that are left out: what begins in one late is no root.
_REMEMBERED = 8_192
_HIDDEN_SECONDS = 0.25
_PATIENCE = 2.0  # seconds that whoever flushes waits for a server that is out of reach


class _Root:
    """A root span and its run."""

    def __init__(self, span: ReadableSpan, run: SpanRun) -> None:
        self.span = span
        self.run: SpanRun | None = run
        self.spans: set[int] = set()
        self.dropped = False

    def leave(self, error: Exception) -> None:
        """End the run, as failed."""
        run, self.run = self.run, None
        if run is not None:
            run.leave(error)

    def finish(self, moment: Moment) -> None:
        """End the run as the span ended."""
        run, self.run = self.run, None
        if run is not None:
            run.finish(moment)


class LavantSpanProcessor(SpanProcessor):
    """Publishes each root span, one with no parent in this process, as a run, and the spans within it as its steps.

    Model requests, tools and agents are known by OpenTelemetry's GenAI conventions; all else is a workflow step.
    The root's end ends the run, with the root's own times; spans within it that are open then are recorded as failed,
    their end is dropped. Everything is published by one thread: the application never waits for it and never gets an
    error from it. When more than `queue_limit` beginnings and ends are waiting, the run of the next one ends as
    FAILED, with one warning. Spans of calls to lavant itself, as instrumented gRPC makes them, are left out, and so is
    what is within them.

    A span is shown to readers a quarter of a second after its beginning, or when another one begins in it, or at its
    end: by then its name and attributes are those that the application has set after the beginning. A tool's
    arguments and result count whenever they are set.

    With `on_error="raise"`, `force_flush` and `shutdown` raise what could not be recorded, else it is logged.
    CancelRun does not stop the application. Close the client after the provider's `shutdown`.

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
        self._on_error = check_on_error(on_error)
        self._options = options or ProducerOptions()
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._worker = Worker(queue_limit, self._show_due, raises=on_error == "raise")
        # A span may end while garbage is collected, in the midst of another one's beginning.
        self._lock = threading.RLock()
        self._roots: dict[int, _Root] = {}
        self._left_out: dict[int, None] = {}
        self._ended_traces: dict[int, None] = {}
        self._hidden: deque[tuple[float, _Root, int]] = deque()
        self._has_shut_down = False

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins."""
        try:
            with self._lock:
                if not self._has_shut_down:
                    self._begin(span)
        except Exception:
            _log.warning("a span could not be recorded", exc_info=True)

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        try:
            with self._lock:
                self._end(span)
        except Exception:
            _log.warning("a span could not be recorded", exc_info=True)

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until what is queued is recorded and durable.

        Returns False after `timeout_millis`, and after 2 seconds if the server is out of reach.
        """
        deadline = monotonic() + timeout_millis / 1000
        self._worker.tell(self._show_all, urgent=True)
        return self._worker.wait(timeout_millis / 1000) and self._flush(deadline)

    @override
    def shutdown(self) -> None:
        """Record what is queued, end the runs whose roots are still open as FAILED, and take no more.

        Waits until all is durable, for 2 seconds at most, or as long as `options.close_timeout` says.
        """
        with self._lock:
            if self._has_shut_down:
                return
            self._has_shut_down = True
            for root in {id(root): root for root in self._roots.values()}.values():
                self._abandon(root, "the tracer provider was shut down before its root span ended")
                self._forget(root)
            self._worker.close()
        patience = self._options.close_seconds(raises=self._on_error == "raise")
        if not self._worker.wait(patience) or not self._flush(monotonic() + patience):
            _log.warning("not all spans are durable after %g s: the rest is sent while the client is open", patience)

    def _flush(self, deadline: float) -> bool:
        if self._on_error == "raise":  # the worker has waited for each run
            return True
        while not self._client.flush(min(_PATIENCE, max(0.001, deadline - monotonic()))):
            if self._client._connection.outage.is_on or monotonic() >= deadline:
                return False
        return True

    def _begin(self, span: Span) -> None:
        context, parent = span.context, span.parent
        if is_call_to_lavant(span) or (parent is not None and parent.span_id in self._left_out):
            _remember(self._left_out, context.span_id)
            return
        root = self._roots.get(parent.span_id) if parent else None
        if root is None:
            if parent and not parent.is_remote and context.trace_id in self._ended_traces:
                _log.debug("span %s began after its root had ended: not recorded", span.name)
                return
            root = _Root(span, self._run_of(span))
        self._roots[context.span_id] = root
        root.spans.add(context.span_id)
        self._tell(root, partial(self._hide, root, span))

    def _end(self, span: ReadableSpan) -> None:
        key = span.context.span_id
        self._left_out.pop(key, None)
        root = self._roots.get(key)
        if root is None:
            _log.debug("span %s ended after its root: not recorded", span.name)
        elif root.span.context.span_id != key:
            self._tell(root, partial(_end, root, Moment.of(span)))
        else:
            self._tell(root, partial(root.finish, Moment.of(span)))
            self._forget(root)

    def _run_of(self, span: Span) -> SpanRun:
        return SpanRun(self._client, span, self._labels, self._producer_timeout, self._options, self._on_error)

    def _tell(self, root: _Root, action: Action) -> None:
        if root.dropped or self._worker.tell(action):
            return
        root.dropped = True
        name = to_name(root.span.name)
        _log.warning("run of span %s is not recorded any further: too many spans are waiting", name)
        self._abandon(root, "not recorded further: too many spans were waiting")

    def _abandon(self, root: _Root, why: str) -> None:
        self._worker.tell(partial(root.leave, LavantError(why)), urgent=True)

    def _forget(self, root: _Root) -> None:
        for key in root.spans:
            self._roots.pop(key, None)
        _remember(self._ended_traces, root.span.context.trace_id)

    def _hide(self, root: _Root, span: Span) -> None:
        """Note the beginning of a span that is shown a little later."""
        if root.run is not None:
            if span is not root.span:
                root.run.begin(span)
            self._hidden.append((monotonic() + _HIDDEN_SECONDS, root, span.context.span_id))

    def _show_due(self) -> float | None:
        """Show the spans that are due; return in how many seconds the next one is."""
        while self._hidden:
            due, root, key = self._hidden[0]
            if root.run is not None and due > monotonic():
                return due - monotonic()
            self._hidden.popleft()
            if root.run is not None:
                root.run.show(key)
        return None

    def _show_all(self) -> None:
        while self._hidden:
            _, root, key = self._hidden.popleft()
            if root.run is not None:
                root.run.show(key)


def _end(root: _Root, moment: Moment) -> None:
    if root.run is not None:
        root.run.end(moment)


def _remember(keys: dict[int, None], key: int) -> None:
    keys[key] = None
    if len(keys) > _REMEMBERED:
        del keys[next(iter(keys))]
